// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.6.12;
pragma experimental ABIEncoderV2;

// The table objects of 2.x as TableFactory (0x1001) hands them out.
interface TableFactory {
    function createTable(string calldata name, string calldata key, string calldata fields) external returns (int256);
    function openTable(string calldata name) external returns (Table);
}

interface Condition {
    function EQ(string calldata field, string calldata value) external;
}

interface Entry {
    function getInt(string calldata field) external returns (int256);
    function set(string calldata field, int256 value) external;
    function set(string calldata field, string calldata value) external;
}

interface Entries {
    function get(int256 index) external returns (Entry);
    function size() external returns (int256);
}

interface Table {
    function select(string calldata key, Condition condition) external returns (Entries);
    function insert(string calldata key, Entry entry) external returns (int256);
    function update(string calldata key, Entry entry, Condition condition) external returns (int256);
    function remove(string calldata key, Condition condition) external returns (int256);
    function newEntry() external returns (Entry);
    function newCondition() external returns (Condition);
}

// Workload `table`: balances as rows of a table, one row an account.
contract TableLedger {
    TableFactory private constant FACTORY = TableFactory(0x1001);
    string private table;

    event Selected(string name, int256 balance);
    event Removed(string name, int256 rows);

    function create(string memory name) public {
        table = name;
        require(FACTORY.createTable(name, "name", "balance") == 0, "table not created");
    }

    function insert(string memory name, int256 balance) public {
        insertRow(FACTORY.openTable(table), name, balance);
    }

    // Set-up of many accounts in one transaction.
    function insertMany(string[] memory names, int256 balance) public {
        Table opened = FACTORY.openTable(table);
        for (uint256 i = 0; i < names.length; i++) {
            insertRow(opened, names[i], balance);
        }
    }

    function select(string memory name) public {
        emit Selected(name, balanceIn(FACTORY.openTable(table), name));
    }

    function transfer(string memory from, string memory to, int256 amount) public {
        Table opened = FACTORY.openTable(table);
        int256 available = balanceIn(opened, from);
        require(available >= amount, "balance too low");
        updateRow(opened, from, available - amount);
        updateRow(opened, to, balanceIn(opened, to) + amount);
    }

    function remove(string memory name) public {
        Table opened = FACTORY.openTable(table);
        emit Removed(name, opened.remove(name, opened.newCondition()));
    }

    function balanceOf(string memory name) public returns (int256) {
        return balanceIn(FACTORY.openTable(table), name);
    }

    function insertRow(Table opened, string memory name, int256 balance) private {
        Entry entry = opened.newEntry();
        entry.set("name", name);
        entry.set("balance", balance);
        require(opened.insert(name, entry) == 1, "row not inserted");
    }

    function updateRow(Table opened, string memory name, int256 balance) private {
        Entry entry = opened.newEntry();
        entry.set("balance", balance);
        Condition condition = opened.newCondition();
        condition.EQ("name", name);
        require(opened.update(name, entry, condition) == 1, "row not updated");
    }

    function balanceIn(Table opened, string memory name) private returns (int256) {
        Entries entries = opened.select(name, opened.newCondition());
        require(entries.size() == 1, "no such row");
        return entries.get(0).getInt("balance");
    }
}
