'use strict';
// The accounts of a worker, kept over its rounds, and the two contracts they live in.
const { WorkloadModuleBase } = require('@hyperledger/caliper-core');

const FIRST_BALANCE = 1000000;
const CONTRACTS = {
    ledger: { open: 'put(string,uint256)', move: 'move(string,string,uint256)', read: 'balance(string)', word: 0 },
    transfers: { open: 'userAdd(string,uint256)', move: 'userTransfer(string,string,uint256)', read: 'userBalance(string)', word: 1 },
};
const accounts = { ledger: [], transfers: [] };

class Workload extends WorkloadModuleBase {
    get on() { return this.roundArguments.on; }
    get functions() { return CONTRACTS[this.on]; }
    get accounts() { return accounts[this.on]; }

    send(signature, values, readOnly = false) {
        return this.sutAdapter.sendRequests({
            contractId: this.on,
            args: Object.assign({ transaction_type: signature }, values),
            readOnly,
        });
    }

    // Balance of an account on the chain: one word of what the contract returns.
    async balance(account) {
        const answer = await this.send(this.functions.read, { account: account.name }, true);
        const output = (Array.isArray(answer) ? answer[0] : answer).status.result.result.output;
        return parseInt(output.slice(2 + 64 * this.functions.word, 66 + 64 * this.functions.word), 16);
    }
}

module.exports = { Workload, FIRST_BALANCE };
