'use strict';
'require view';
'require form';
'require poll';
'require uci';
'require headgate.common as headgate';

const E = headgate.E;

const CIPHERS = [ '2022-blake3-aes-128-gcm', '2022-blake3-aes-256-gcm', '2022-blake3-chacha20-poly1305', 'chacha20-ietf-poly1305', 'aes-128-gcm', 'aes-256-gcm' ];

return view.extend({
	handleSaveApply: headgate.saveAndApply,

	load() {
		return Promise.all([ L.resolveDefault(headgate.call.providers(), { running: false, providers: [] }), uci.load('headgate') ]);
	},

	render([ state ]) {
		this.live = E('div');
		this.show(state);
		poll.add(() => L.resolveDefault(headgate.call.providers(), { running: false, providers: [] }).then((s) => this.show(s)), 5);
		return this.form().render().then((node) => headgate.page(E('h2', _('Subscriptions and nodes')), this.live, node));
	},

	show(state) {
		if (!state.running)
			return this.live.replaceChildren(headgate.stopped());
		const used = (info) => info && info.Total ? _('%s of %s').format(headgate.bytes((info.Upload || 0) + (info.Download || 0)), headgate.bytes(info.Total)) : '—';
		this.live.replaceChildren(headgate.table([ _('Name'), _('Holds'), _('Entries'), _('Updated'), _('Traffic'), '' ],
			state.providers.map((p) => [ p.name, p.kind === 'rules' ? _('rules') : _('nodes'), String(p.count),
				p.updated ? new Date(p.updated).toLocaleString() : '—', used(p.subscription),
				headgate.button(_('Update'), 'action', () => headgate.call.update(p.kind, p.name)) ]),
			_('There are no subscriptions yet.')));
	},

	named(map, type, title) {
		const s = map.section(form.GridSection, type, title);
		s.anonymous = s.addremove = s.sortable = s.nodescriptions = true;
		let o = s.option(form.Flag, 'enabled', _('On'));
		o.default = '1';
		o.editable = true;
		o = s.option(form.Value, 'name', _('Name'));
		o.rmempty = false;
		return s;
	},

	form() {
		const map = new form.Map('headgate');
		let s = this.named(map, 'subscription', _('Subscriptions (nodes)'));
		this.source(s, _('A file of nodes in Clash, base64 or link form.'));
		let o = s.option(form.Value, 'filter', _('Only nodes whose name matches'));
		o.modalonly = true;

		s = this.named(map, 'ruleset', _('Rule sets'));
		o = s.option(form.ListValue, 'behavior', _('Holds'));
		[ 'domain', 'ipcidr', 'classical' ].forEach((behavior) => o.value(behavior));
		o = s.option(form.ListValue, 'format', _('Format'));
		[ 'yaml', 'text', 'mrs' ].forEach((format) => o.value(format));
		o.modalonly = true;
		this.source(s);

		s = this.named(map, 'proxy', _('Nodes'));
		this.node(s);

		s = this.named(map, 'group', _('Groups'));
		o = s.option(form.ListValue, 'type', _('Chooses'));
		o.value('select', _('by hand'));
		o.value('url-test', _('the fastest'));
		o.value('fallback', _('the first that answers'));
		o.value('load-balance', _('all in turn'));
		headgate.titled(o);
		o = s.option(form.DynamicList, 'proxy', _('Members'));
		[ 'DIRECT', 'REJECT', ...uci.sections('headgate', 'proxy').map((p) => p.name) ].forEach((name) => name && o.value(name));
		headgate.titled(o);
		o = s.option(form.DynamicList, 'use', _('Members from subscriptions'));
		uci.sections('headgate', 'subscription').forEach((p) => p.name && o.value(p.name));
		headgate.titled(o);
		o = s.option(form.Value, 'filter', _('Only nodes whose name matches'));
		o.modalonly = true;
		return map;
	},

	source(s, help) {
		let o = s.option(form.Value, 'url', _('Address'), help);
		o.rmempty = false;
		o.password = true;
		o.textvalue = (section) => { const url = uci.get('headgate', section, 'url'); return [ url ? url.replace(/^(\w+:\/\/[^/?]*).*/, '$1/…') : '' ]; };
		o = s.option(form.Value, 'interval', _('Renew after seconds'));
		o.datatype = 'min(60)';
		o.placeholder = '86400';
		o.modalonly = true;
		o = s.option(form.Value, 'proxy', _('Fetched by'));
		o.placeholder = 'DIRECT';
		o.modalonly = true;
	},

	node(s) {
		let o = s.option(form.ListValue, 'type', _('Type'));
		[ 'ss', 'socks5', 'http', 'vmess', 'vless', 'trojan' ].forEach((type) => o.value(type));
		o = s.option(form.Value, 'server', _('Server'));
		o.datatype = 'host';
		o.rmempty = false;
		o = s.option(form.Value, 'port', _('Port'));
		o.datatype = 'port';
		o.rmempty = false;
		o = s.option(form.Value, 'cipher', _('Cipher'));
		CIPHERS.forEach((cipher) => o.value(cipher));
		o.depends('type', 'ss');
		o.modalonly = true;
		o = s.option(form.Value, 'uuid', _('UUID'));
		o.depends('type', 'vmess');
		o.depends('type', 'vless');
		o.password = o.modalonly = true;
		o = s.option(form.Value, 'username', _('User'));
		o.depends('type', 'socks5');
		o.depends('type', 'http');
		o.modalonly = true;
		o = s.option(form.Value, 'password', _('Password'));
		[ 'ss', 'socks5', 'http', 'trojan' ].forEach((type) => o.depends('type', type));
		o.password = o.modalonly = true;
		o = s.option(form.Flag, 'tls', _('TLS'));
		[ 'socks5', 'http', 'vmess', 'vless' ].forEach((type) => o.depends('type', type));
		o.modalonly = true;
		o = s.option(form.Value, 'servername', _('Server name in TLS'));
		o.modalonly = true;
		o = s.option(form.Flag, 'udp', _('UDP'));
		o.default = '1';
		o.modalonly = true;
	}
});
