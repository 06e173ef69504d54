'use strict';
'require view';
'require form';
'require poll';
'require uci';
'require headgate.common as headgate';

const E = headgate.E;

return view.extend({
	handleSaveApply: headgate.saveAndApply,

	load() {
		return Promise.all([ L.resolveDefault(headgate.call.mqtt(), { running: false }), L.resolveDefault(uci.load('headgate'), null) ]);
	},

	render([ state, configured ]) {
		this.live = E('div');
		this.show(state);
		poll.add(() => L.resolveDefault(headgate.call.mqtt(), { running: false }).then((s) => this.show(s)), 5);
		if (!configured)
			return headgate.page(E('h2', _('MQTT')), this.live);
		return this.form().render().then((node) => headgate.page(E('h2', _('MQTT')), this.live, node));
	},

	show(state) {
		if (!state.running)
			return this.live.replaceChildren(E('div', { 'class': 'alert-message notice' }, _('The broker does not run, or its interface is switched off.')));
		const section = (title, titles, rows, empty) => [ E('h3', title), headgate.table(titles, rows, empty) ];
		const saved = state.saved ? _('Last saved %s (%s on flash).').format(new Date(state.saved.time * 1000).toLocaleString(), headgate.bytes(state.saved.bytes))
			: _('Nothing has been saved yet, or saving is switched off.');
		this.live.replaceChildren(
			E('p', { 'class': 'saved' }, saved),
			...section(_('Clients'), [ _('Client'), _('User'), _('Address'), _('Connected'), _('Messages'), '' ],
				(state.clients || []).map((c) => [ c.clientid, c.username || '—', c.ip_address || '—', c.connected_at || '—',
					'%d / %d'.format(c.recv_msg || 0, c.send_msg || 0), headgate.button(_('Disconnect'), 'remove', () => headgate.call.kick(c.clientid)) ]),
				_('No client is connected.')),
			...section(_('Subscriptions'), [ _('Topic'), _('Client'), _('QoS') ],
				(state.subscriptions || []).map((s) => [ s.topic, s.clientid, String(s.qos) ]), _('Nobody has subscribed.')),
			...section(_('Rules'), [ _('Rule'), _('On'), _('SQL'), _('Matched') ],
				(state.rules || []).map((r) => [ r.description || r.id, r.enabled ? _('yes') : _('no'), r.rawsql,
					String((r.metrics || []).reduce((sum, m) => sum + (m.matched || 0), 0)) ]), _('There are no rules.')));
	},

	form() {
		const map = new form.Map('headgate');
		let s = map.section(form.NamedSection, 'mqtt', 'mqtt', _('Broker'));
		s.addremove = false;
		s.option(form.Flag, 'enabled', _('Run the broker'));
		s.option(form.Flag, 'allow_anonymous', _('Let clients in without a password'));
		let o = s.option(form.ListValue, 'acl_default', _('When no access rule matches'));
		o.value('deny', _('deny'));
		o.value('allow', _('allow'));
		o = s.option(form.Value, 'max_retained', _('Most retained messages'));
		o.datatype = 'uinteger';
		o.placeholder = '10000';
		o = s.option(form.Flag, 'persistence', _('Keep sessions and retained messages over restarts'));
		o.default = '1';

		s = map.section(form.GridSection, 'mqtt_listener', _('Listeners'));
		s.anonymous = s.addremove = true;
		o = s.option(form.Value, 'name', _('Name'));
		o.rmempty = false;
		o = s.option(form.ListValue, 'type', _('Type'));
		[ 'tcp', 'tls', 'ws', 'wss' ].forEach((type) => o.value(type));
		o = s.option(form.Value, 'listen', _('Address and port'));
		o.datatype = 'ipaddrport(1)';
		o.placeholder = '192.168.1.1:1883';
		o.rmempty = false;
		for (const name of [ 'certificate', 'private_key' ]) {
			o = s.option(form.Value, name, name === 'certificate' ? _('Certificate file') : _('Key file'));
			o.datatype = 'file';
			o.depends('type', 'tls');
			o.depends('type', 'wss');
			o.modalonly = true;
		}

		s = map.section(form.GridSection, 'mqtt_user', _('Users'));
		s.anonymous = s.addremove = true;
		o = s.option(form.Value, 'username', _('User'));
		o.rmempty = false;
		o = s.option(form.Value, 'password', _('Password'));
		o.password = o.modalonly = true;
		o.rmempty = false;
		s.option(form.Flag, 'superuser', _('Above all access rules'));

		s = map.section(form.GridSection, 'mqtt_acl', _('Access rules'), _('The first rule that matches decides; %u is the user, %c the client.'));
		s.anonymous = s.addremove = s.sortable = true;
		o = s.option(form.ListValue, 'permission', _('Permission'));
		o.value('deny', _('deny'));
		o.value('allow', _('allow'));
		headgate.titled(o);
		o = s.option(form.ListValue, 'action', _('Action'));
		o.value('all', _('all'));
		o.value('publish', _('publish'));
		o.value('subscribe', _('subscribe'));
		headgate.titled(o);
		s.option(form.Value, 'username', _('User'));
		s.option(form.Value, 'client_id', _('Client'));
		o = s.option(form.Value, 'address', _('Address'));
		o.datatype = 'or(ipaddr, cidr)';
		o.modalonly = true;
		headgate.titled(s.option(form.DynamicList, 'topic', _('Topics')));

		s = map.section(form.NamedSection, 'management', 'management', _('Management interface'));
		s.addremove = false;
		s.option(form.Flag, 'enabled', _('Serve the EMQX-compatible API'));
		o = s.option(form.Value, 'listen', _('Address and port'));
		o.datatype = 'ipaddrport(1)';
		o.placeholder = '127.0.0.1:8081';
		return map;
	}
});
