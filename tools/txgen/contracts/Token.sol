// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.6.12;

// Workload `token`: a fungible token with the ERC-20 interface whose owner mints.
contract Token {
    string public constant name = "Load";
    string public constant symbol = "LOAD";
    uint8 public constant decimals = 0;
    uint256 public totalSupply;
    address public owner;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed holder, address indexed spender, uint256 value);

    constructor() public {
        owner = msg.sender;
    }

    function mint(address to, uint256 value) public {
        require(msg.sender == owner, "only the owner mints");
        credit(to, value);
    }

    // Set-up of many accounts in one transaction.
    function mintMany(address[] memory accounts, uint256 value) public {
        require(msg.sender == owner, "only the owner mints");
        for (uint256 i = 0; i < accounts.length; i++) {
            credit(accounts[i], value);
        }
    }

    function transfer(address to, uint256 value) public returns (bool) {
        move(msg.sender, to, value);
        return true;
    }

    function approve(address spender, uint256 value) public returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) public returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        require(allowed >= value, "allowance too low");
        allowance[from][msg.sender] = allowed - value;
        move(from, to, value);
        return true;
    }

    function credit(address to, uint256 value) private {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }

    function move(address from, address to, uint256 value) private {
        uint256 available = balanceOf[from];
        require(available >= value, "balance too low");
        balanceOf[from] = available - value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}
