'use strict';
'require view';
'require form';
'require uci';
'require poll';
'require headgate.common as headgate';

const E = headgate.E;

const TYPES = [ 'DOMAIN', 'DOMAIN-SUFFIX', 'DOMAIN-KEYWORD', 'DOMAIN-WILDCARD', 'DOMAIN-REGEX', 'GEOSITE', 'IP-CIDR', 'IP-CIDR6', 'GEOIP',
	'IP-ASN', 'SRC-IP-CIDR', 'SRC-MAC', 'SRC-PORT', 'DST-PORT', 'NETWORK', 'RULE-SET', 'IN-TYPE', 'IN-NAME', 'AND', 'OR', 'NOT', 'MATCH' ];
const BY_ADDRESS = [ 'IP-CIDR', 'IP-CIDR6', 'GEOIP', 'IP-ASN', 'RULE-SET' ];

return view.extend({
	handleSaveApply: headgate.saveAndApply,

	load() {
		return Promise.all([
			L.resolveDefault(headgate.call.rules(), { running: false, rules: [] }),
			L.resolveDefault(headgate.call.proxies(), {}),
			L.resolveDefault(uci.load('headgate'), null)
		]);
	},

	render([ state, proxies, configured ]) {
		this.live = E('div');
		this.show(state);
		poll.add(() => L.resolveDefault(headgate.call.rules(), { running: false, rules: [] }).then((s) => this.show(s)), 5);
		const parts = [ E('h2', _('Rules')), this.test(), E('h3', _('Rules in force')), this.live ];
		/* Who may not see the configuration sees what runs. */
		if (!configured)
			return headgate.page(...parts);
		return this.form(proxies).render().then((form) => headgate.page(...parts, form));
	},

	/* "Which rule would this match?": the daemon runs the very code that decides. */
	test() {
		const host = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'placeholder': _('www.example.org or an address') });
		const port = E('input', { 'type': 'number', 'class': 'cbi-input-text', 'value': '443', 'min': 1, 'max': 65535 });
		const network = E('select', { 'class': 'cbi-input-select' }, [ 'tcp', 'udp' ].map((n) => E('option', { 'value': n }, n)));
		const source = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'placeholder': _('device (optional address)') });
		const answer = E('pre', { 'style': 'display: none' });
		const button = E('button', { 'class': 'btn cbi-button cbi-button-action', 'click': () => {
			headgate.call.explain(host.value.trim(), +port.value, network.value, source.value.trim()).then((got) => {
				answer.style.display = '';
				answer.textContent = got.ok ? JSON.stringify(got.answer, null, 2) : _('headgate gave no answer.');
			});
		} }, _('Which rule?'));
		return E('div', [ E('div', { 'class': 'bar' }, [ host, port, network, source, button ]), answer ]);
	},

	show(state) {
		if (!state.running)
			return this.live.replaceChildren(headgate.stopped());
		this.live.replaceChildren(headgate.table([ '#', _('Type'), _('Value'), _('Target'), _('Hits') ],
			state.rules.map((rule, i) => {
				const hits = rule.extra && rule.extra.hitCount !== undefined ? rule.extra.hitCount : rule.hitCount;
				return [ String(i + 1), rule.type, rule.payload, rule.proxy, hits === undefined ? '—' : String(hits) ];
			}), _('There are no rules.')));
	},

	form(proxies) {
		const map = new form.Map('headgate', null, _('The first rule that matches decides. Drag rows to change the order; the policies of devices come before all rules.'));
		const s = map.section(form.GridSection, 'rule', _('Your rules'));
		s.anonymous = s.addremove = s.sortable = s.nodescriptions = true;

		let o = s.option(form.Flag, 'enabled', _('On'));
		o.default = '1';
		o.editable = true;

		o = s.option(form.ListValue, 'type', _('Type'));
		TYPES.forEach((type) => o.value(type));
		o.default = 'DOMAIN-SUFFIX';

		o = s.option(form.Value, 'value', _('Value'));
		TYPES.filter((type) => type !== 'MATCH').forEach((type) => o.depends('type', type));
		o.rmempty = false;

		o = s.option(form.Value, 'target', _('Target'));
		this.targets(proxies).forEach((name) => o.value(name));
		o.rmempty = false;

		o = s.option(form.Flag, 'no_resolve', _('Only known addresses'), _('Do not resolve a name for this rule.'));
		BY_ADDRESS.forEach((type) => o.depends('type', type));
		o.modalonly = true;

		o = s.option(form.Value, 'schedule', _('Schedule'));
		uci.sections('headgate', 'schedule').forEach((schedule) => o.value(schedule.name || schedule['.name']));
		o.modalonly = true;

		const rest = map.section(form.NamedSection, 'main', 'headgate');
		o = rest.option(form.Value, 'final', _('Everything else'));
		this.targets(proxies).forEach((name) => o.value(name));
		o.default = 'DIRECT';
		return map;
	},

	targets(proxies) {
		const configured = [ ...uci.sections('headgate', 'group'), ...uci.sections('headgate', 'proxy') ].map((s) => s.name).filter(Boolean);
		const live = (proxies.groups || []).map((group) => group.name).filter((name) => name !== 'GLOBAL');
		return [ ...new Set([ 'DIRECT', 'REJECT', ...configured, ...live ]) ];
	}
});
