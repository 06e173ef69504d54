'use strict';
'require view';
'require form';
'require ui';
'require tools.widgets as widgets';
'require headgate.common as headgate';

const E = headgate.E;

return view.extend({
	handleSaveApply: headgate.saveAndApply,

	render() {
		const map = new form.Map('headgate', null, _('Nothing here changes dnsmasq or the firewall: when headgate stops, the LAN goes as before.'));
		let s = map.section(form.NamedSection, 'main', 'headgate');
		s.tab('general', _('General'));
		s.tab('file', _('Own file'));
		let o = s.taboption('general', form.Flag, 'enabled', _('Run headgate'));
		o.rmempty = false;
		o = s.taboption('general', form.ListValue, 'mode', _('Mode'));
		o.value('rule', _('By rules'));
		o.value('global', _('All by one exit'));
		o.value('direct', _('All direct'));
		o = s.taboption('general', form.ListValue, 'log_level', _('Log'));
		[ 'error', 'warning', 'info', 'debug' ].forEach((level) => o.value(level));
		o = s.taboption('general', form.Flag, 'ipv6', _('IPv6'));
		o.default = '1';
		o = s.taboption('general', form.Flag, 'jail', _('Run in a jail'), _('With three capabilities and a read-only root, where procd-ujail is installed.'));
		o = s.taboption('file', form.ListValue, 'source', _('Configuration'));
		o.value('uci', _('these pages'));
		o.value('file', _('a YAML file of your own (these pages are not used)'));
		o = s.taboption('file', form.Value, 'file', _('File'));
		o.depends('source', 'file');
		o.placeholder = '/etc/headgate/config.yaml';

		s = map.section(form.NamedSection, 'transparent', 'transparent', _('LAN traffic'));
		o = s.option(form.Flag, 'enabled', _('Take the LAN\'s traffic'));
		o.default = '1';
		o = s.option(widgets.NetworkSelect, 'interface', _('From'));
		o.multiple = true;
		o.nocreate = true;
		o = s.option(form.ListValue, 'fail', _('If headgate dies'));
		o.value('open', _('the LAN goes on directly'));
		o.value('closed', _('the LAN is cut off'));
		o = s.option(form.Flag, 'dns_hijack', _('Answer DNS of the LAN, whatever server it asks'));
		o.default = '1';
		o = s.option(form.Flag, 'ipv6', _('IPv6 too'));
		o.default = '1';
		o = s.option(form.Flag, 'offload', _('Leave direct connections to the kernel'));
		o.default = '1';
		s.option(form.Flag, 'router_traffic', _('Take the router\'s own traffic too'));
		o = s.option(form.ListValue, 'mode', _('By'));
		o.value('tproxy');
		o.value('redirect');
		o = s.option(form.DynamicList, 'bypass', _('Never to'));
		o.datatype = 'cidr';

		s = map.section(form.NamedSection, 'inbound', 'inbound', _('Proxy for those who want one'));
		o = s.option(form.Value, 'mixed_port', _('Port (HTTP and SOCKS)'));
		o.datatype = 'port';
		s.option(form.Flag, 'allow_lan', _('Also for the LAN'));
		o = s.option(form.DynamicList, 'authentication', _('Users'));
		o.placeholder = 'user:password';

		s = map.section(form.NamedSection, 'controller', 'controller', _('Dashboards'));
		o = s.option(form.Value, 'listen', _('Address and port'), _('Empty: none. These pages need no port.'));
		o.datatype = 'ipaddrport(1)';
		o.placeholder = '192.168.1.1:9090';
		o = s.option(form.Value, 'secret', _('Secret'));
		o.password = true;
		this.map = map;
		return map.render().then((node) => headgate.page(E('h2', _('Settings')), this.doctor(), node));
	},

	doctor() {
		const body = E('div');
		const look = E('button', { 'class': 'btn cbi-button cbi-button-action', 'click': ui.createHandlerFn(this, () => headgate.call.doctor().then((findings) => {
			body.replaceChildren(headgate.table([ '', _('Finding'), _('Detail'), _('What helps') ],
				findings.map((f) => [ E('strong', { 'class': 'level-' + f.level }, f.level), this.message(f), f.detail || '', f.fix || '' ]), _('Nothing was found.')));
		})) }, _('Look for faults'));
		return E('div', [ E('div', { 'class': 'bar' }, look), body ]);
	},

	message(finding) {
		const known = {
			running: { ok: _('The daemon answers.'), error: _('The daemon does not answer.'), warning: _('headgate is switched off.') },
			configuration: { ok: _('The configuration is valid.'), error: _('The configuration is refused.') },
			modules: { ok: _('The kernel modules are there.'), error: _('Kernel modules are missing.') },
			clock: { error: _('The clock is wrong: TLS will fail.') },
			certificates: { error: _('There are no root certificates: TLS will fail.') },
			'ipv6-leak': { error: _('IPv6 of the LAN goes around headgate.') },
			'dns-leak': { warning: _('DNS of the LAN goes around headgate.') },
			others: { error: _('Another transparent proxy has rules of its own.') }
		};
		return (known[finding.id] || {})[finding.level] || finding.message;
	}
});
