'use strict';
'require view';
'require form';
'require headgate.common as headgate';

const E = headgate.E;

return view.extend({
	handleSaveApply: headgate.saveAndApply,

	render() {
		const map = new form.Map('headgate', null, _('Fake addresses let rules see names without a wait. dnsmasq keeps the names of your LAN.'));
		let s = map.section(form.NamedSection, 'dns', 'dns');
		s.addremove = false;

		let o = s.option(form.Flag, 'enabled', _('Answer DNS'));
		o.default = '1';

		o = s.option(form.ListValue, 'integration', _('How queries come'));
		o.value('hijack', _('taken from the LAN (dnsmasq untouched)'));
		o.value('dnsmasq', _('from dnsmasq, as its upstream while headgate lives'));

		o = s.option(form.ListValue, 'mode', _('Answers'));
		o.value('fake-ip', _('fake addresses'));
		o.value('redir-host', _('real addresses'));

		o = s.option(form.DynamicList, 'nameserver', _('Servers'));
		o.placeholder = '1.1.1.1, tls://dns.example.net, https://dns.example.net/dns-query';
		o = s.option(form.DynamicList, 'default_nameserver', _('Servers that resolve the names of servers'));
		o.datatype = 'or(ipaddr, string)';
		s.option(form.DynamicList, 'proxy_server_nameserver', _('Servers for the names of nodes'));
		s.option(form.DynamicList, 'direct_nameserver', _('Servers for direct connections'));
		s.option(form.DynamicList, 'fake_ip_filter', _('Names with real addresses'));
		o = s.option(form.Value, 'fake_ip_range', _('Range of fake addresses'));
		o.datatype = 'cidr4';
		o.placeholder = '198.18.0.1/16';
		s.option(form.Flag, 'store_fake_ip', _('Keep fake addresses over restarts'), _('Writes to flash.'));

		s = map.section(form.GridSection, 'dns_policy', _('Servers by name'));
		s.anonymous = s.addremove = s.sortable = true;
		o = s.option(form.Value, 'domain', _('Domain'));
		o.placeholder = '+.example.org';
		o.rmempty = false;
		s.option(form.DynamicList, 'nameserver', _('Servers'));

		s = map.section(form.GridSection, 'host', _('Fixed names'));
		s.anonymous = s.addremove = true;
		o = s.option(form.Value, 'name', _('Name'));
		o.rmempty = false;
		o = s.option(form.DynamicList, 'address', _('Addresses'));
		o.rmempty = false;

		return map.render().then((node) => headgate.page(E('h2', _('DNS')), this.query(), node));
	},

	query() {
		const name = E('input', { 'type': 'text', 'class': 'cbi-input-text', 'placeholder': 'www.example.org' });
		const type = E('select', { 'class': 'cbi-input-select' }, [ 'A', 'AAAA', 'HTTPS', 'TXT', 'MX', 'PTR' ].map((t) => E('option', { 'value': t }, t)));
		const answer = E('pre', { 'style': 'display: none' });
		return E('div', [
			E('div', { 'class': 'bar' }, [
				name, type,
				E('button', { 'class': 'btn cbi-button cbi-button-action', 'click': () => {
					headgate.call.resolve(name.value.trim(), type.value).then((got) => {
						answer.style.display = '';
						answer.textContent = !got.ok ? _('headgate gave no answer.')
							: (got.answer.Answer || []).map((record) => '%s  %d  %s'.format(record.name, record.TTL, record.data)).join('\n') || _('No such record.');
					});
				} }, _('Ask')),
				headgate.button(_('Empty the cache'), 'neutral', () => headgate.call.flush('dns')),
				headgate.button(_('Forget fake addresses'), 'neutral', () => headgate.call.flush('fakeip'))
			]), answer
		]);
	}
});
