'use strict';
// Drives the command line of nodejs-sdk as its users do and checks what it prints: every command, in one group.
// Run by tools/clients/nodejs.sh in packages/cli of a configured copy of the SDK.
//   checks.js GROUP
// One line a check: PASS, FAIL or SKIP, its name, and for a failure why. The last line is "end".
const { execFile } = require('child_process');
const vm = require('vm');

const group = process.argv[2];
const STRANGER = '0x' + '12'.repeat(20);
const NO_HASH = '0x' + 'ab'.repeat(32);
// Names that no earlier run on the same chain has used.
const RUN = Date.now().toString(36);
const TABLE = `goods_${RUN}`;
const OK = { code: 0, msg: 'success' };
// Only a vote of the committee grants the right to grant (2.x from 2.5 on); the SDK is older than that.
const VOTE_NEEDED = -51004;
const state = {};

// What a command prints, and its exit status.
function run(...words) {
    return new Promise((resolve) => {
        execFile(process.execPath, ['cli.js', ...words], { timeout: 30000, maxBuffer: 64 << 20 }, (error, out, err) =>
            resolve({ failed: error !== null, text: out.trim(), error: err.replace(/\x1b\[[0-9;]*m/g, '').trim() }));
    });
}

// What a command that succeeds prints: JSON, or where the SDK does not recognise its own result as such, what Node.js makes of it.
async function cli(...words) {
    const { failed, text, error } = await run(...words);
    if (failed) throw new Error(`${words[0]}: ${error || text}`);
    return JSON.parse(JSON.stringify(vm.runInNewContext(`(${text})`)));
}

const ask = async (...words) => (await cli(...words)).result;

// The complaint of a command that fails.
async function refusal(...words) {
    const { failed, text, error } = await run(...words);
    expect(failed, `${words[0]} was accepted: ${text}`);
    return error;
}

function expect(condition, what) {
    if (!condition) throw new Error(typeof what === 'string' ? what : JSON.stringify(what));
}

function same(got, wanted) {
    expect(JSON.stringify(got) === JSON.stringify(wanted), `${JSON.stringify(got)}, not ${JSON.stringify(wanted)}`);
}

const checks = {
    async accounts_are_read_from_pem_and_p12() {
        for (const name of ['alice', 'bob', 'cherry']) expect(/^0x[0-9a-f]{40}$/.test((await cli('showAccount', name)).account), name);
        state.alice = (await cli('showAccount', 'alice')).account;
        expect((await refusal('showAccount', 'nobody')).includes('invalid id of account'), 'an unknown name');
    },

    async node_and_group_are_told() {
        const version = await ask('getClientVersion');
        expect(version['Supported Version'].startsWith('2.') && version['Chain Id'] === '1', version);
        expect((await ask('getGroupList')).includes(Number(group)), 'the group is not listed');
        state.sealers = await ask('getSealerList');
        same(await ask('getObserverList'), []);
        same((await ask('getGroupPeers')).sort(), [...state.sealers].sort());
        state.nodes = await ask('getNodeIDList');
        const peers = await ask('getPeers');
        same(peers.map((peer) => peer.NodeID).sort(), state.nodes.slice(1).sort());
        const [consensus, views] = await ask('getConsensusStatus');
        same([consensus.nodeId, consensus.groupId, views.length], [state.nodes[0], Number(group), state.sealers.length]);
        const sync = await ask('getSyncStatus');
        same([sync.nodeId, sync.txPoolSize, sync.peers.length], [state.nodes[0], '0', peers.length]);
        expect(Number(await ask('getPbftView')) >= 0 && Number(await ask('getBlockNumber')) >= 0, 'numbers');
        same([await ask('getPendingTxSize'), await ask('getPendingTransactions')], ['0', []]);
    },

    async contracts_of_both_compilers_are_deployed_and_called() {
        for (const contract of ['HelloWorldV4', 'HelloWorldV5']) {
            const deployed = await cli('deploy', contract);
            same(deployed.status, '0x0');
            state[contract] = deployed;
            same((await cli('call', contract, deployed.contractAddress, 'get')).output.result, ['Hello, World!']);
            const sent = await cli('call', contract, deployed.contractAddress, 'set', 'a name');
            same(sent.status, '0x0');
            state.sent = sent.transactionHash;
            same((await cli('call', contract, deployed.contractAddress, 'get')).output.result, ['a name']);
        }
        expect((await ask('getCode', state.HelloWorldV4.contractAddress)).length > 100, 'code');
        same(await ask('getCode', STRANGER), '0x');
        same((await cli('call', 'HelloWorldV4', STRANGER, 'get')).status, '0x1a');
    },

    async blocks_and_transactions_agree() {
        const receipt = await ask('getTransactionReceipt', state.sent);
        const transaction = await ask('getTransactionByHash', state.sent);
        same([receipt.status, receipt.blockHash, receipt.from], ['0x0', transaction.blockHash, state.alice]);
        // What this SDK alone puts there.
        same([transaction.extraData, transaction.gasPrice], ['0x00', '0x0']);
        const [number, index] = [String(parseInt(receipt.blockNumber, 16)), String(parseInt(receipt.transactionIndex, 16))];
        same(await ask('getTransactionByBlockNumberAndIndex', number, index), transaction);
        same(await ask('getTransactionByBlockHashAndIndex', receipt.blockHash, index), transaction);
        same(await ask('getBlockHashByNumber', number), receipt.blockHash);
        const block = await ask('getBlockByNumber', number, 'true');
        same(block.transactions[parseInt(index)], transaction);
        same(await ask('getBlockByHash', receipt.blockHash, 'true'), block);
        const short = await ask('getBlockByHash', receipt.blockHash);
        same([short.transactions, short.signatureList], [block.transactions.map((one) => one.hash), undefined]);
        expect(Number((await ask('getTotalTransactionCount')).txSum) >= 4, 'the count');
    },

    async unknown_things_are_null_or_errors() {
        same([await ask('getTransactionByHash', NO_HASH), await ask('getTransactionReceipt', NO_HASH)], [null, null]);
        expect((await refusal('getBlockByNumber', '1000000000')).includes('-40004'), 'height');
        expect((await refusal('getBlockByHash', NO_HASH)).includes('-40003'), 'hash');
        expect((await refusal('getTransactionByBlockNumberAndIndex', '1', '9999')).includes('-40005'), 'index');
        expect((await refusal('deploy', 'NoSuchContract')).includes("doesn't exist"), 'contract');
    },

    async system_configuration_is_set() {
        for (const [key, value] of [['tx_count_limit', String(1000 + (Date.now() % 1000))], ['tx_gas_limit', '400000000']]) {
            same(await cli('setSystemConfigByKey', key, value), OK);
            same(await ask('getSystemConfigByKey', key), value);
        }
        same((await cli('setSystemConfigByKey', 'tx_gas_limit', '1')).code, -51300);
    },

    async tables_are_written_and_read() {
        same(await cli('sql', `create table ${TABLE}(name varchar, item_id varchar, item_name varchar, primary key(name))`), OK);
        same((await cli('sql', `create table ${TABLE}(name varchar, item_id varchar, primary key(name))`)).code, -50001);
        const description = await cli('desc', TABLE);
        same([description.tableName, description.key, description.valueFields], [TABLE, 'name', 'item_id,item_name']);
        expect((await refusal('desc', `no_${RUN}`)).includes("doesn't exist"), 'an unknown table');
        for (const [id, name] of [['1', 'pear'], ['2', 'plum'], ['3', 'peach']]) {
            const inserted = await cli('sql', `insert into ${TABLE} values ('fruit', '${id}', '${name}')`);
            same(inserted, Object.assign({}, OK, { affected: 1 }));
        }
        const rows = await cli('sql', `select * from ${TABLE} where name = 'fruit' and item_id != '2'`);
        same(rows, [{ name: 'fruit', item_id: '1', item_name: 'pear' }, { name: 'fruit', item_id: '3', item_name: 'peach' }]);
        same(await cli('sql', `select item_name from ${TABLE} where name = 'fruit' limit 1, 1`), [{ item_name: 'plum' }]);
        same(await cli('sql', `update ${TABLE} set item_name = 'quince' where name = 'fruit' and item_id > '1'`), Object.assign({}, OK, { affected: 2 }));
        same(await cli('sql', `delete from ${TABLE} where name = 'fruit' and item_id = '1'`), Object.assign({}, OK, { affected: 1 }));
        same(await cli('sql', `select item_id, item_name from ${TABLE} where name = 'fruit'`),
            [{ item_id: '2', item_name: 'quince' }, { item_id: '3', item_name: 'quince' }]);
        same(await cli('sql', `select * from ${TABLE} where name = 'tree'`), []);
    },

    async contracts_are_found_by_name() {
        const version = `1.${RUN}`;
        const deployed = await cli('deployByCNS', 'HelloWorldV4', version, 'alice');
        same(deployed.status, '0x0');
        expect((await refusal('deployByCNS', 'HelloWorldV4', version, 'alice')).includes('already exist'), 'the same version');
        const [entry] = await cli('queryCNS', 'HelloWorldV4', version);
        same([entry.name, entry.version, entry.address], ['HelloWorldV4', version, deployed.contractAddress]);
        expect(JSON.parse(entry.abi).length > 0, 'its interface');
        expect((await cli('queryCNS', 'HelloWorldV4')).some((one) => one.version === version), 'all versions');
        same((await cli('callByCNS', `HelloWorldV4:${version}`, 'set', 'named')).status, '0x0');
        same((await cli('callByCNS', `HelloWorldV4:${version}`, 'get')).output.result, ['named']);
        same((await cli('callByCNS', 'HelloWorldV4', 'get')).output.result, ['named']);
        expect((await refusal('callByCNS', 'HelloWorldV4:nothing', 'get')).length > 0, 'an unknown version');
    },

    async permissions_are_granted_listed_and_revoked() {
        for (const kind of ['DeployAndCreate', 'Node', 'CNS', 'SysConfig']) {
            const [grant, list, revoke] = ['grant', 'list', 'revoke'].map((verb) => `${verb}${kind}Manager`);
            same(await cli(list), []);
            // The sender first: whoever has no grant could not revoke the last one.
            for (const address of [state.alice, STRANGER]) same(await cli(grant, address), OK);
            same((await cli(grant, STRANGER)).code, -51000);
            same((await cli(list)).map((one) => one.address), [state.alice, STRANGER]);
            for (const address of [STRANGER, state.alice]) same(await cli(revoke, address), OK);
            same((await cli(revoke, STRANGER)).code, -51001);
            same(await cli(list), []);
        }
    },

    async tables_are_closed_to_who_has_no_grant() {
        same(await cli('grantUserTableManager', TABLE, STRANGER), OK);
        same((await cli('listUserTableManager', TABLE)).map((one) => one.address), [STRANGER]);
        same((await cli('sql', `insert into ${TABLE} values ('fruit', '4', 'fig')`)).code, -50000);
        same(await cli('revokeUserTableManager', TABLE, STRANGER), OK);
        same((await cli('sql', `insert into ${TABLE} values ('fruit', '4', 'fig')`)).affected, 1);
        expect((await refusal('grantUserTableManager', `no_${RUN}`, STRANGER)).includes("doesn't exist"), 'an unknown table');
    },

    async the_right_to_grant_needs_a_vote_of_the_committee() {
        same((await cli('grantPermissionManager', STRANGER)).code, VOTE_NEEDED);
        same((await cli('revokePermissionManager', STRANGER)).code, VOTE_NEEDED);
        same(await cli('listPermissionManager'), []);
    },

    async nodes_change_their_role() {
        const spare = state.nodes.find((node) => node !== state.nodes[0] && state.sealers.includes(node));
        if (!spare) return 'a network of one node has none to spare';
        same((await cli('addSealer', spare)).code, -51104);
        same((await cli('addSealer', '0'.repeat(128))).code, -51102);
        same(await cli('removeNode', spare), OK);
        same((await cli('removeNode', spare)).code, -51103);
        same(await cli('addObserver', spare), OK);
        same((await cli('addObserver', spare)).code, -51105);
        same([await ask('getObserverList'), (await ask('getSealerList')).includes(spare)], [[spare], false]);
        same(await cli('addSealer', spare), OK);
        same((await ask('getSealerList')).sort(), [...state.sealers].sort());
    },
};

async function main() {
    for (const [name, check] of Object.entries(checks)) {
        try {
            const why = await check();
            console.log(why ? `SKIP ${name} ${why}` : `PASS ${name}`);
        } catch (error) {
            console.log(`FAIL ${name} ${String(error.message).replace(/\n/g, ' ').slice(0, 400)}`);
        }
    }
    console.log('end');
}

main();
