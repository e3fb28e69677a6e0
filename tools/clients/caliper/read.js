'use strict';
// Reads balances.
const { Workload } = require('./accounts');

class Read extends Workload {
    constructor() {
        super();
        this.asked = 0;
    }

    async submitTransaction() {
        const account = this.accounts[this.asked++ % this.accounts.length];
        const held = await this.balance(account);
        if (held !== account.balance) throw new Error(`${account.name} holds ${held}, not ${account.balance}`);
    }
}

module.exports.createWorkloadModule = () => new Read();
