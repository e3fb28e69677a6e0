'use strict';
// Opens an account in each transaction.
const { Workload, FIRST_BALANCE } = require('./accounts');

class Open extends Workload {
    async submitTransaction() {
        const name = `${Date.now().toString(36)}-${this.workerIndex}-${this.accounts.length}`;
        this.accounts.push({ name, balance: FIRST_BALANCE });
        await this.send(this.functions.open, { account: name, balance: FIRST_BALANCE });
    }
}

module.exports.createWorkloadModule = () => new Open();
