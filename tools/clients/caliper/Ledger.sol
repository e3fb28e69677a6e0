pragma solidity ^0.4.24;

// Accounts with a balance each; every change is an event.
contract Ledger {
    mapping(string => uint256) private balances;

    event Changed(string account, uint256 balance);

    function put(string account, uint256 balance) public {
        balances[account] = balance;
        emit Changed(account, balance);
    }

    function move(string from, string to, uint256 amount) public {
        require(balances[from] >= amount, "balance too low");
        balances[from] -= amount;
        balances[to] += amount;
        emit Changed(from, balances[from]);
        emit Changed(to, balances[to]);
    }

    function balance(string account) public constant returns (uint256) {
        return balances[account];
    }
}
