'use strict';
'require baseclass';
'require dom';
'require poll';
'require rpc';
'require uci';
'require ui';

/* What headgate's pages share: the calls, a banner over every page, names and numbers as text.
   Whatever comes from the network (names of hosts, nodes, topics) goes into the page as text only. */

/* LuCI's own E() reads a lone string as HTML; in a list it is text, and so is what is not there: "undefined". Every
   page calls this one. */
const E = (name, attributes, children) => {
	if (!(attributes instanceof Object) || Array.isArray(attributes) || dom.elem(attributes))
		[ attributes, children ] = [ {}, attributes ];
	return dom.create(name, attributes, [].concat(children).filter((child) => child !== null && child !== undefined));
};

const declare = (method, params, expect) => rpc.declare({ object: 'luci.headgate', method, params, expect });

/* How long a change waits to be confirmed before the router takes it back. */
const SECONDS = 90;

const getHostHints = rpc.declare({ object: 'luci-rpc', method: 'getHostHints', expect: { '': {} } });

const call = {
	status: declare('status'),
	proxies: declare('proxies'),
	rules: declare('rules'),
	providers: declare('providers'),
	explain: declare('explain', [ 'host', 'port', 'network', 'source' ]),
	resolve: declare('resolve', [ 'name', 'type' ]),
	mqtt: declare('mqtt'),
	doctor: declare('doctor', [], { findings: [] }),
	check: declare('check'),
	select: declare('select', [ 'group', 'name' ]),
	delay: declare('delay', [ 'group' ]),
	close: declare('close', [ 'id' ]),
	flush: declare('flush', [ 'what' ]),
	update: declare('update', [ 'kind', 'name' ]),
	mode: declare('mode', [ 'mode' ]),
	kick: declare('mqtt_kick', [ 'client' ]),
	sql: declare('sql'),
	query: declare('query', [ 'sql' ]),
	sqlTry: declare('sql_try', [ 'sql', 'sample' ]),
	sqlCreate: declare('sql_create', [ 'sql', 'description', 'action', 'params' ]),
	sqlEnable: declare('sql_enable', [ 'id', 'on' ]),
	sqlDelete: declare('sql_delete', [ 'id' ]),
	service: declare('service', [ 'action' ]),
	transaction: declare('transaction', [ 'action', 'seconds' ]),
	transactionStatus: declare('transaction_status')
};

return baseclass.extend({
	E,

	call,

	bytes: (n) => '%1024.1mB'.format(n || 0),

	rate: (n) => '%1024.1mB/s'.format(Math.round(n || 0)),

	readonly: () => !L.hasViewPermission(),

	/* A button that is busy while its promise runs and tells what went wrong. */
	button(text, style, action) {
		return E('button', {
			'class': 'btn cbi-button cbi-button-' + style,
			'disabled': this.readonly() || null,
			'click': ui.createHandlerFn(this, () => Promise.resolve(action()).then((answer) => {
				if (answer && answer.ok === false)
					ui.addNotification(null, E('p', answer.text || _('headgate refused it, or does not run.')), 'warning');
				return answer;
			}))
		}, text);
	},

	/* What this router's DHCP and DNS know of the LAN: MAC to name and addresses. */
	hints: () => L.resolveDefault(getHostHints(), {}),

	/* The name of a device by its address. */
	names() {
		return this.hints().then((hints) => {
			const names = {};
			for (const mac in hints)
				for (const address of [ ...(hints[mac].ipaddrs || []), ...(hints[mac].ip6addrs || []) ])
					names[address] = hints[mac].name || address;
			return (address) => names[address] || address;
		});
	},

	/* The summary of a grid shows what was chosen by the titles that the form has for it. */
	titled(option) {
		const title = (value) => (option.vallist || [])[(option.keylist || []).indexOf(value)] || value;
		option.textvalue = (section) => {
			const text = [].concat(option.cfgvalue(section) ?? option.default ?? '').map(title).join(', ');
			return text ? [ text ] : null;
		};
	},

	table(titles, rows, empty) {
		const table = E('table', { 'class': 'table' }, E('tr', { 'class': 'tr table-titles' },
			titles.map((title) => E('th', { 'class': 'th' }, title))));
		for (const row of rows)
			table.appendChild(E('tr', { 'class': 'tr' }, row.map((cell, i) =>
				E('td', { 'class': 'td', 'data-title': titles[i] || null }, cell))));
		if (!rows.length)
			table.appendChild(E('tr', { 'class': 'tr placeholder' }, E('td', { 'class': 'td', 'colspan': titles.length }, E('em', empty))));
		return table;
	},

	/* A page of this app: the style, the banner and what it shows. */
	page(...content) {
		const banner = E('div');
		const refresh = () => L.resolveDefault(call.transactionStatus(), {}).then((state) => this.showTransaction(banner, state));
		poll.add(refresh, 5);
		refresh();
		return E('div', { 'class': 'headgate' }, [
			E('link', { 'rel': 'stylesheet', 'href': L.resource('headgate/style.css') }),
			banner, ...content
		]);
	},

	/* The `handleSaveApply` of every page: a change is a transaction, which the router takes back unless it is
	   confirmed in time. */
	saveAndApply(ev, mode) {
		return this.handleSave(ev)
			.then(() => uci.changes())
			.then((changes) => changes.headgate ? call.transaction('begin', SECONDS) : null)
			.then((answer) => {
				if (answer && !answer.ok)
					ui.addNotification(null, E('p', answer.text), 'warning');
				return ui.changes.apply(mode === '0');
			});
	},

	showTransaction(banner, state) {
		banner.replaceChildren();
		if (!state.open)
			return;
		banner.appendChild(E('div', { 'class': 'alert-message warning' }, [
			E('p', _('A change waits to be confirmed. It will be undone in %d seconds.').format(state.seconds)),
			this.button(_('Keep the change'), 'positive', () => call.transaction('confirm')), ' ',
			this.button(_('Undo now'), 'negative', () => call.transaction('undo'))
		]));
	},

	stopped: () => E('div', { 'class': 'alert-message notice' }, _('headgate does not run.'))
});
