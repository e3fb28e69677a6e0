pragma solidity ^0.4.25;

// Uses the system contracts through tables and names. Compiled with solc 0.4.25 (optimizer, 200 runs, byzantium) into Ledger.bin.

contract Tables {
    function openTable(string) public view returns (address);
    function createTable(string, string, string) public returns (int256);
}

contract Filter {
    function EQ(string, string) public view;
    function GT(string, int256) public view;
    function limit(int256) public view;
}

contract Row {
    function getInt(string) public view returns (int256);
    function getString(string) public view returns (string);
    function set(string, int256) public;
    function set(string, string) public;
}

contract Rows {
    function get(int256) public view returns (Row);
    function size() public view returns (int256);
}

contract Rowset {
    function select(string, Filter) public view returns (Rows);
    function insert(string, Row) public returns (int256);
    function update(string, Row, Filter) public returns (int256);
    function remove(string, Filter) public returns (int256);
    function newEntry() public view returns (Row);
    function newCondition() public view returns (Filter);
}

contract Pairs {
    function get(string) public view returns (bool, Row);
    function set(string, Row) public returns (int256);
    function newEntry() public view returns (Row);
}

contract Names {
    function insert(string, string, string, string) public returns (uint256);
    function getContractAddress(string, string) public view returns (address);
}

contract Ledger {
    event Booked(string account, int256 rows);

    Tables constant tables = Tables(0x1001);
    Tables constant pairTables = Tables(0x1010);
    Names constant names = Names(0x1004);
    uint256 public bookings;

    constructor() public {
        require(tables.createTable("ledger", "account", "memo,amount") == 0);
        require(pairTables.createTable("owners", "account", "owner") == 0);
    }

    function open() private view returns (Rowset) { return Rowset(tables.openTable("ledger")); }

    // Several rows may have the same account.
    function book(string account, string memo, int256 amount) public returns (int256) {
        Rowset rowset = open();
        Row row = rowset.newEntry();
        row.set("memo", memo);
        row.set("amount", amount);
        int256 count = rowset.insert(account, row);
        bookings++;
        emit Booked(account, count);
        return count;
    }

    function bookThenRevert(string account, string memo, int256 amount) public {
        book(account, memo, amount);
        revert("taken back");
    }

    // The inner call reverts, the outer one goes on.
    function tryBook(string account, string memo, int256 amount) public returns (bool) {
        book(account, "kept", amount);
        return address(this).call(abi.encodeWithSignature("bookThenRevert(string,string,int256)", account, memo, amount));
    }

    function above(string account, int256 amount) public view returns (int256 count, string memo) {
        Rowset rowset = open();
        Filter filter = rowset.newCondition();
        filter.GT("amount", amount);
        Rows rows = rowset.select(account, filter);
        count = rows.size();
        if (count > 0) memo = rows.get(0).getString("memo");
    }

    function correct(string account, string memo, int256 amount) public returns (int256) {
        Rowset rowset = open();
        Filter filter = rowset.newCondition();
        filter.EQ("memo", memo);
        Row row = rowset.newEntry();
        row.set("amount", amount);
        return rowset.update(account, row, filter);
    }

    function strike(string account, int256 most) public returns (int256) {
        Rowset rowset = open();
        Filter filter = rowset.newCondition();
        filter.limit(most);
        return rowset.remove(account, filter);
    }

    function own(string account, string owner) public returns (int256) {
        Pairs pairs = Pairs(pairTables.openTable("owners"));
        Row row = pairs.newEntry();
        row.set("owner", owner);
        return pairs.set(account, row);
    }

    function ownerOf(string account) public view returns (bool known, string owner) {
        Pairs pairs = Pairs(pairTables.openTable("owners"));
        Row row;
        (known, row) = pairs.get(account);
        if (known) owner = row.getString("owner");
    }

    function register(string version, string self) public returns (uint256) { return names.insert("ledger", version, self, "[]"); }

    function find(string version) public view returns (address) { return names.getContractAddress("ledger", version); }
}
