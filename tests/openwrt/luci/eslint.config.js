'use strict';

/* LuCI's pages: a function body with its requirements as strings on the first lines. */

const REQUIRE = /^'require ([\w.-]+)(?: as (\w+))?';$/gm;

/* The names that the loader binds, for no-undef. LuCI's global E is not among them: it takes a lone string for HTML,
   and the pages have one of their own that does not. */
const processor = {
	preprocess: (text) => [ '/* global %s */'.replace('%s', [ ...text.matchAll(REQUIRE) ].map((m) => m[2] || m[1].split('.').pop()).join(', ') || 'L') + text ],
	postprocess: (messages) => messages.flat()
};

module.exports = [ {
	files: [ '**/*.js' ],
	plugins: { luci: { processors: { luci: processor } } },
	processor: 'luci/luci',
	languageOptions: {
		ecmaVersion: 2020,
		sourceType: 'script',
		parserOptions: { ecmaFeatures: { globalReturn: true } },
		globals: { L: 'readonly', _: 'readonly', document: 'readonly', window: 'readonly', Promise: 'readonly', URL: 'readonly', Blob: 'readonly' }
	},
	rules: {
		'no-undef': 'error', 'no-unused-vars': [ 'error', { argsIgnorePattern: '^_' } ], 'no-implied-eval': 'error', 'no-eval': 'error', 'no-redeclare': [ 'error', { builtinGlobals: false } ],
		'no-unreachable': 'error', 'no-dupe-keys': 'error', 'prefer-const': 'error', 'no-var': 'error', 'eqeqeq': [ 'error', 'smart' ],
		'no-restricted-properties': [ 'error', { property: 'innerHTML', message: 'names from the network are text' }, { property: 'outerHTML' } ]
	}
} ];
