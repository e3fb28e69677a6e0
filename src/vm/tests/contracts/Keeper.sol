// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.6.12;

// Restricts contracts through the system contracts. Compiled with solc 0.6.12 (optimizer, 200 runs, istanbul) into Keeper.bin.

interface LifeCycle {
    function freeze(address) external returns (int256);
    function unfreeze(address) external returns (int256);
    function getStatus(address) external view returns (int256, string memory);
    function listManager(address) external view returns (int256, address[] memory);
}

interface Permission {
    function grantWrite(address, address) external returns (int256);
    function revokeWrite(address, address) external returns (int256);
}

contract Vault {
    uint256 public value;

    function set(uint256 next) public { value = next; }
}

contract Keeper {
    LifeCycle constant lifeCycle = LifeCycle(0x1007);
    Permission constant permission = Permission(0x1005);
    Vault public vault;
    bool public ok;

    constructor() public { vault = new Vault(); }

    function freeze() public returns (int256) { return lifeCycle.freeze(address(vault)); }

    function unfreeze() public returns (int256) { return lifeCycle.unfreeze(address(vault)); }

    function status() public view returns (int256, string memory) { return lifeCycle.getStatus(address(vault)); }

    function managers() public view returns (int256, address[] memory) { return lifeCycle.listManager(address(vault)); }

    function grant(address user) public returns (int256) { return permission.grantWrite(address(vault), user); }

    function revoke(address user) public returns (int256) { return permission.revokeWrite(address(vault), user); }

    // Frozen and called in one transaction.
    function freezeAndSet() public returns (int256 code, bool done) {
        code = lifeCycle.freeze(address(vault));
        (done, ) = address(vault).call(abi.encodeWithSignature("set(uint256)", 9));
    }

    // Goes on when the vault may not be written.
    function trySet(uint256 next) public returns (bool done) {
        (done, ) = address(vault).call(abi.encodeWithSignature("set(uint256)", next));
        ok = done;
    }
}
