'use strict';
'require view';
'require poll';
'require rpc';
'require headgate.common as headgate';

const E = headgate.E;

const LINES = 1000;
const SEVERITIES = [ 'emerg', 'alert', 'crit', 'err', 'warn', 'notice', 'info', 'debug' ];

const read = rpc.declare({ object: 'log', method: 'read', params: [ 'lines', 'stream', 'oneshot' ], expect: { log: [] } });

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load() {
		return L.resolveDefault(read(LINES, false, true), []);
	},

	render(entries) {
		this.level = E('select', { 'class': 'cbi-input-select', 'change': () => this.show() },
			[ [ 7, _('everything') ], [ 6, _('information and worse') ], [ 4, _('warnings and worse') ], [ 3, _('errors only') ] ]
				.map(([ value, title ]) => E('option', { 'value': value }, title)));
		this.filter = E('input', { 'type': 'search', 'class': 'cbi-input-text', 'placeholder': _('only lines with'), 'input': () => this.show() });
		this.lines = E('pre');
		this.entries = entries;
		this.show();
		poll.add(() => L.resolveDefault(read(LINES, false, true), this.entries).then((fresh) => {
			this.entries = fresh;
			this.show();
		}), 5);
		return headgate.page(E('h2', _('Log')), E('div', { 'class': 'bar' }, [
			this.level, this.filter, E('button', { 'class': 'btn cbi-button', 'click': () => this.download() }, _('Download'))
		]), this.lines);
	},

	chosen() {
		const text = this.filter.value.toLowerCase();
		return this.entries
			.filter((entry) => /\bheadgate\b/.test(entry.msg) && (entry.priority & 7) <= +this.level.value && entry.msg.toLowerCase().includes(text))
			.map((entry) => '%s %s %s'.format(new Date(entry.time).toLocaleString(), SEVERITIES[entry.priority & 7], entry.msg));
	},

	show() {
		const end = this.lines.scrollTop + this.lines.clientHeight >= this.lines.scrollHeight - 4;
		this.lines.textContent = this.chosen().join('\n') || _('There is nothing in the log.');
		if (end)
			this.lines.scrollTop = this.lines.scrollHeight;
	},

	download() {
		const link = E('a', { 'download': 'headgate.log', 'href': URL.createObjectURL(new Blob([ this.chosen().join('\n') ], { 'type': 'text/plain' })) });
		link.click();
		URL.revokeObjectURL(link.href);
	}
});
