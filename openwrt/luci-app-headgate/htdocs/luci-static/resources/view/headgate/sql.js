'use strict';
'require view';
'require poll';
'require headgate.common as headgate';

const E = headgate.E;

const NOTHING = { running: false };

const zh = () => (document.documentElement.lang || '').startsWith('zh');
const words = (both) => (both && (zh() ? both.zh : both.en)) || '';
const cell = (value) => value === null || value === undefined ? '—' : typeof value === 'object' ? JSON.stringify(value) : String(value);
const area = (rows, text) => E('textarea', { 'class': 'cbi-input-textarea', 'rows': rows, 'spellcheck': 'false', 'placeholder': text || null });

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load: () => L.resolveDefault(headgate.call.sql(), NOTHING),

	render(state) {
		this.live = E('div');
		this.show(state);
		poll.add(() => this.refresh(), 5);
		const parts = [ E('h2', _('SQL')), this.questions(state.tables || []), E('h3', _('SQL rules')), this.live ];
		if (state.running)
			parts.push(E('h3', _('New SQL rule')), this.creation(state));
		return headgate.page(...parts);
	},

	refresh() {
		return L.resolveDefault(headgate.call.sql(), NOTHING).then((state) => this.show(state));
	},

	/* A question to the router, and its rows. */
	questions(tables) {
		const examples = [
			[ _('Traffic by device'), 'SELECT device, count(*) AS flows, sum(up) AS up, sum(down) AS down FROM flows GROUP BY device ORDER BY down DESC LIMIT 20' ],
			[ _('Traffic by destination'), 'SELECT host, outbound, count(*) AS flows, sum(down) AS down FROM flows GROUP BY host, outbound ORDER BY down DESC LIMIT 20' ],
			[ _('Names that were asked for'), 'SELECT device, name, type, rcode, answers FROM dns ORDER BY time DESC LIMIT 20' ],
			[ _('Rules by hits'), 'SELECT type, payload, proxy, hits FROM rules ORDER BY hits DESC LIMIT 20' ],
			[ _('Clients of the broker'), 'SELECT clientid, username, address, connected, received, sent FROM mqtt_clients LIMIT 50' ]
		];
		const sql = area(3), rows = E('div');
		const choose = (text) => { sql.value = text; };
		choose(examples[0][1]);
		const select = E('select', { 'class': 'cbi-input-select', 'change': (event) => choose(examples[+event.target.value][1]) },
			examples.map(([ title ], i) => E('option', { 'value': i }, title)));
		const ask = E('button', { 'class': 'btn cbi-button cbi-button-action ask', 'click': () =>
			headgate.call.query(sql.value).then((answer) => rows.replaceChildren(this.rows(answer))) }, _('Ask'));
		return E('div', [
			E('p', _('The first question begins the record of connections and names; it takes 2 MB at most and ends with the service.')),
			E('div', { 'class': 'bar' }, [ select, ask ]), sql, rows,
			E('details', [ E('summary', _('Tables and columns')),
				headgate.table([ _('Table'), _('Columns') ], tables.map((table) => [ table.table, table.columns.join(', ') ]), _('headgate does not run.')) ])
		]);
	},

	rows(answer) {
		if (!answer.ok)
			return E('div', { 'class': 'alert-message warning' }, answer.text || _('headgate gave no answer.'));
		const list = Array.isArray(answer.rows) ? answer.rows : [ answer.rows ];
		const columns = [ ...new Set(list.flatMap((row) => Object.keys(row))) ];
		return headgate.table(columns, list.map((row) => columns.map((name) => cell(row[name]))), _('No rows.'));
	},

	show(state) {
		if (!state.running)
			return this.live.replaceChildren(E('div', { 'class': 'alert-message notice' }, _('The broker does not run, or its interface is switched off.')));
		const then = (done) => Promise.resolve(done).then((answer) => this.refresh().then(() => answer));
		this.live.replaceChildren(
			headgate.table([ _('Rule'), _('SQL'), _('Matched'), _('Passed'), _('Failed'), _('Actions'), '' ],
				state.rules.map((rule) => [ rule.description || rule.id, E('code', rule.sql), String(rule.matched), String(rule.passed), String(rule.failed),
					E('div', rule.actions.map((action) => E('div', '%s: %d / %d'.format(action.name, action.success, action.failed)))),
					E('div', { 'class': 'bar' }, [
						headgate.button(rule.enabled ? _('Switch off') : _('Switch on'), 'neutral', () => then(headgate.call.sqlEnable(rule.id, !rule.enabled))),
						headgate.button(_('Delete'), 'remove', () => then(headgate.call.sqlDelete(rule.id)))
					]) ]), _('There are no rules.')),
			E('h3', _('Resources')),
			headgate.table([ _('Resource'), _('Type'), _('Alive') ],
				state.resources.map((one) => [ one.description || one.id, one.type, one.alive ? _('yes') : _('no') ]), _('There are no resources.')));
	},

	creation(state) {
		const input = (placeholder) => E('input', { 'type': 'text', 'class': 'cbi-input-text', 'placeholder': placeholder || null });
		const description = input(_('Name of the rule'));
		const sql = area(4, 'SELECT device, host FROM "$events/connection_opened" WHERE device = \'192.168.1.50\'');
		const sample = area(2, '{"topic": "t/1", "payload": "{\\"temp\\": 31}"}');
		const action = E('select', { 'class': 'cbi-input-select action' }, state.actions.map((one) => E('option', { 'value': one.name }, words(one.title))));
		const params = E('div'), tried = E('div');
		let fields = {};
		const fill = () => {
			const wanted = state.actions.find((one) => one.name === action.value);
			fields = {};
			params.replaceChildren(...Object.entries(wanted ? wanted.params : {}).sort((a, b) => a[1].order - b[1].order).map(([ name, param ]) => {
				fields[name] = this.field(name, param, wanted, state.resources);
				return E('label', { 'class': 'bar' }, [ E('span', words(param.title) + (param.required ? ' *' : '')), fields[name] ]);
			}));
		};
		action.addEventListener('change', fill);
		action.value = 'republish';
		fill();
		const values = () => {
			const given = {};
			for (const name in fields)
				if (fields[name].value !== '')
					given[name] = fields[name].json ? JSON.parse(fields[name].value) : fields[name].value;
			return given;
		};
		const wrong = (error) => ({ ok: false, text: _('That is no JSON: %s').format(error.message) });
		return E('div', { 'class': 'creation' }, [
			E('div', { 'class': 'bar' }, [ description, action ]), sql, params,
			E('details', [ E('summary', _('Try it with sample values')), sample ]),
			E('div', { 'class': 'bar' }, [
				headgate.button(_('Try'), 'action', () => {
					try {
						return headgate.call.sqlTry(sql.value, sample.value ? JSON.parse(sample.value) : {}).then((answer) => { tried.replaceChildren(this.rows(answer)); });
					}
					catch (error) {
						return wrong(error);
					}
				}),
				headgate.button(_('Create'), 'positive', () => {
					try {
						return headgate.call.sqlCreate(sql.value, description.value, action.value, values())
							.then((answer) => this.refresh().then(() => answer));
					}
					catch (error) {
						return wrong(error);
					}
				})
			]), tried
		]);
	},

	/* What takes the value of one parameter. */
	field(name, param, action, resources) {
		const choices = name === '$resource' ? resources.filter((one) => action.types.includes(one.type)).map((one) => one.id) : param.enum;
		if (choices)
			return E('select', { 'class': 'cbi-input-select', 'data-name': name }, choices.map((one) => E('option', { 'value': one }, one)));
		const box = param.input === 'textarea' ? area(2) : E('input', { 'type': 'text', 'class': 'cbi-input-text' });
		box.setAttribute('data-name', name);
		box.json = param.type === 'object';
		const value = param.default;
		box.value = value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
		return box;
	}
});
