// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.6.12;
pragma experimental ABIEncoderV2;

// Workload `solidity`: balances under text names, so that every access hashes a string and touches one storage slot.
contract Transfer {
    mapping(string => uint256) private balances;

    function set(string memory name, uint256 amount) public {
        balances[name] = amount;
    }

    // Set-up of many accounts in one transaction.
    function setMany(string[] memory names, uint256 amount) public {
        for (uint256 i = 0; i < names.length; i++) {
            balances[names[i]] = amount;
        }
    }

    function transfer(string memory from, string memory to, uint256 amount) public {
        uint256 available = balances[from];
        require(available >= amount, "balance too low");
        balances[from] = available - amount;
        balances[to] += amount;
    }

    function balanceOf(string memory name) public view returns (uint256) {
        return balances[name];
    }
}
