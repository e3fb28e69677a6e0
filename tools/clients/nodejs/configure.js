'use strict';
// Points a configuration of nodejs-sdk at a node. Run by tools/clients/nodejs.sh.
//   configure.js FILE CHANNEL CERTIFICATES GROUP
const fs = require('fs');

const [file, channel, certificates, group] = process.argv.slice(2);
const colon = channel.lastIndexOf(':');
const config = JSON.parse(fs.readFileSync(file, 'utf8'));
config.nodes = [{ ip: channel.slice(0, colon), port: channel.slice(colon + 1) }];
config.authentication = { key: `${certificates}/sdk.key`, cert: `${certificates}/sdk.crt`, ca: `${certificates}/ca.crt` };
config.groupID = Number(group);
fs.writeFileSync(file, JSON.stringify(config, null, 4));
