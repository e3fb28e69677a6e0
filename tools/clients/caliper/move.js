'use strict';
// Moves amounts between the worker's accounts, and compares the chain with its own books at the end.
const { Workload } = require('./accounts');

class Move extends Workload {
    constructor() {
        super();
        this.sent = 0;
    }

    async submitTransaction() {
        const [count, turn] = [this.accounts.length, this.sent++];
        const from = this.accounts[turn % count];
        const to = this.accounts[(turn + 1 + (turn % (count - 1))) % count];
        const amount = 1 + (turn % 97);
        from.balance -= amount;
        to.balance += amount;
        await this.send(this.functions.move, { from: from.name, to: to.name, amount });
    }

    async cleanupWorkloadModule() {
        for (const account of this.accounts) {
            const held = await this.balance(account);
            if (held !== account.balance) throw new Error(`${account.name} holds ${held}, not ${account.balance}`);
        }
    }
}

module.exports.createWorkloadModule = () => new Move();
