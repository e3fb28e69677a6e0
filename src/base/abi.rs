//! Solidity ABI as the system contracts of 2.x read and write it.
