'use strict';
'require view';
'require form';
'require uci';
'require headgate.common as headgate';

const E = headgate.E;

return view.extend({
	handleSaveApply: headgate.saveAndApply,

	load() {
		return Promise.all([
			headgate.hints(),
			L.resolveDefault(headgate.call.proxies(), {}),
			uci.load('headgate')
		]);
	},

	render([ hints, proxies ]) {
		const map = new form.Map('headgate', null, _('What a device may do, whatever it asks for. These policies come before all rules.'));
		let s = map.section(form.GridSection, 'device', _('Devices'));
		s.anonymous = s.addremove = s.sortable = s.nodescriptions = true;

		let o = s.option(form.Flag, 'enabled', _('On'));
		o.default = '1';
		o.editable = true;

		o = s.option(form.Value, 'name', _('Name'));
		o.rmempty = false;

		o = s.option(form.Value, 'mac', _('MAC address'));
		o.datatype = 'macaddr';
		Object.keys(hints).forEach((mac) => o.value(mac, '%s (%s)'.format(hints[mac].name || (hints[mac].ipaddrs || [])[0] || '?', mac)));

		o = s.option(form.Value, 'ip', _('or its address'));
		o.datatype = 'or(ipaddr, cidr)';
		o.modalonly = true;

		o = s.option(form.ListValue, 'policy', _('Policy'));
		o.value('rules', _('By the rules'));
		o.value('direct', _('Always direct'));
		o.value('proxy', _('Always by a proxy'));
		o.value('block', _('Blocked'));
		o.value('bypass', _('Never touched'));
		headgate.titled(o);

		o = s.option(form.Value, 'target', _('Proxy or group'));
		o.depends('policy', 'proxy');
		[ ...uci.sections('headgate', 'group'), ...uci.sections('headgate', 'proxy') ].forEach((section) => section.name && o.value(section.name));
		(proxies.groups || []).forEach((group) => o.value(group.name));
		o.rmempty = false;

		o = s.option(form.ListValue, 'schedule', _('When'));
		o.value('', _('always'));
		uci.sections('headgate', 'schedule').forEach((section) => o.value(section.name || section['.name']));
		headgate.titled(o);

		s = map.section(form.GridSection, 'schedule', _('Schedules'), _('Outside its times the device goes by the rules. A time that ends before it begins passes midnight.'));
		s.anonymous = s.addremove = true;
		o = s.option(form.Value, 'name', _('Name'));
		o.rmempty = false;
		o = s.option(form.MultiValue, 'day', _('Days'));
		[ _('Monday'), _('Tuesday'), _('Wednesday'), _('Thursday'), _('Friday'), _('Saturday'), _('Sunday') ].forEach((day, i) => o.value(String(i + 1), day));
		headgate.titled(o);
		for (const [ name, title, value ] of [ [ 'start', _('From'), '21:00' ], [ 'stop', _('Until'), '07:00' ] ]) {
			o = s.option(form.Value, name, title);
			o.placeholder = value;
			o.rmempty = false;
			o.validate = (_section, text) => /^([01]?\d|2[0-4]):[0-5]\d$/.test(text) || _('a time like 21:30');
		}
		return map.render().then((node) => headgate.page(E('h2', _('Devices')), node));
	}
});
