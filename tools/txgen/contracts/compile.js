// SPDX-License-Identifier: Apache-2.0
// Writes NAME.bin beside each NAME.sol; see README.md.
const fs = require('fs'), path = require('path'), solc = require('solc');
const sources = {};
for (const file of fs.readdirSync(__dirname).filter((name) => name.endsWith('.sol'))) {
  sources[file] = { content: fs.readFileSync(path.join(__dirname, file), 'utf8') };
}
const settings = { optimizer: { enabled: true, runs: 200 }, evmVersion: 'istanbul', metadata: { bytecodeHash: 'none' },
  outputSelection: { '*': { '*': ['evm.bytecode.object', 'evm.methodIdentifiers'] } } };
const output = JSON.parse(solc.compile(JSON.stringify({ language: 'Solidity', sources, settings })));
for (const message of output.errors || []) console.error(message.formattedMessage);
if ((output.errors || []).some((message) => message.severity === 'error')) process.exit(1);
for (const file of Object.keys(sources)) {
  const name = path.basename(file, '.sol');
  fs.writeFileSync(path.join(__dirname, name + '.bin'), output.contracts[file][name].evm.bytecode.object + '\n');
  console.log(name, output.contracts[file][name].evm.methodIdentifiers);
}
