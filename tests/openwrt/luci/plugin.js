/* Runs the ucode plugin of rpcd in Node: ucode's syntax is JavaScript's as far as the plugin uses it, and
   its builtins are given here by their documentation (strings are bytes). One request a line on standard
   input, one answer a line. Commands run by chroot in the router's root: plugin.js PLUGIN ROOT. */

'use strict';

const fs = require('fs');
const path = require('path');
const { spawnSync } = require('child_process');

const [ plugin, root ] = process.argv.slice(2);
const bytes = (text) => Buffer.from(String(text), 'utf8');

const builtins = {
	popen(command) {
		const done = spawnSync('chroot', [ root, '/bin/sh', '-c', command ], { encoding: 'utf8', maxBuffer: 1 << 26 });
		return { read: () => done.stdout, close: () => done.status };
	},
	access: (file) => fs.existsSync(path.join(root, file)),
	stat: (file) => {
		const found = fs.statSync(path.join(root, file), { throwIfNoEntry: false });
		return found ? { mtime: Math.floor(found.mtimeMs / 1000), size: found.size } : null;
	},
	length: (value) => typeof value === 'string' ? bytes(value).length : Array.isArray(value) ? value.length : Object.keys(value).length,
	substr: (text, at, count) => bytes(text).subarray(at, at + count).toString('latin1'),
	ord: (text) => text.charCodeAt(0),
	match: (text, pattern) => String(text).match(pattern),
	replace: (text, pattern, by) => String(text).replace(pattern, () => by),
	sprintf: (format, value) => format.replace(/%02X|%J|%d/, (kind) => kind === '%J' ? JSON.stringify(value)
		: kind === '%d' ? String(Math.trunc(Number(value) || 0)) : value.toString(16).toUpperCase().padStart(2, '0')).replace('%%', '%'),
	json: (text) => JSON.parse(text),
	keys: Object.keys,
	push: (array, value) => array.push(value),
	slice: (array, from, to) => array.slice(from, to),
	sort: (array, by) => array.sort(by),
	trim: (text) => text.trim(),
	time: () => Math.floor(Date.now() / 1000),
	type: (value) => Array.isArray(value) ? 'array' : value === null || value === undefined ? null : typeof value
};

const source = fs.readFileSync(plugin, 'utf8').replace(/^import \{[^}]*\} from 'fs';$/m, '');
const methods = new Function(...Object.keys(builtins), source)(...Object.values(builtins))['luci.headgate'];

let rest = '';
process.stdin.on('data', (piece) => {
	const lines = (rest + piece).split('\n');
	rest = lines.pop();
	for (const line of lines) {
		const { method, args } = JSON.parse(line);
		const answer = method === '' ? Object.keys(methods) : methods[method].call({ args: args || {} });
		process.stdout.write(JSON.stringify(answer === undefined ? null : answer) + '\n');
	}
});
