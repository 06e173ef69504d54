'use strict';
'require view';
'require poll';
'require headgate.common as headgate';

const E = headgate.E;

/* Two minutes of samples, two seconds apart; the browser keeps them, the router does not. */
const SAMPLES = 60, INTERVAL = 2;

const svg = (name, attributes) => {
	const node = document.createElementNS('http://www.w3.org/2000/svg', name);
	for (const key in attributes)
		node.setAttribute(key, attributes[key]);
	return node;
};

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load() {
		return Promise.all([ L.resolveDefault(headgate.call.status(), { running: false }), headgate.names() ]);
	},

	render([ status, names ]) {
		this.names = names;
		this.samples = [];
		this.tiles = E('div', { 'class': 'tiles' });
		this.down = svg('polyline', { 'class': 'down' });
		this.up = svg('polyline', { 'class': 'up' });
		this.graph = svg('svg', { 'class': 'graph', 'viewBox': '0 0 %d 100'.format(SAMPLES - 1), 'preserveAspectRatio': 'none' });
		this.graph.append(this.down, this.up);
		this.legend = E('div', { 'class': 'legend' });
		this.devices = E('div');
		this.top = E('div');
		const page = headgate.page(E('h2', _('headgate')), this.tiles, this.graph, this.legend,
			E('div', { 'class': 'bar' }, [
				headgate.button(_('Start'), 'positive', () => headgate.call.service('start')),
				headgate.button(_('Restart'), 'action', () => headgate.call.service('restart')),
				headgate.button(_('Stop'), 'negative', () => headgate.call.service('stop')),
				headgate.button(_('Close all connections'), 'neutral', () => headgate.call.close(''))
			]),
			E('h3', _('Devices')), this.devices, E('h3', _('Top connections')), this.top);
		this.show(status);
		poll.add(() => L.resolveDefault(headgate.call.status(), { running: false }).then((s) => this.show(s)), INTERVAL);
		return page;
	},

	/* Bytes a second since the last sample; a restarted daemon begins again at nothing. */
	sample(status) {
		const now = Date.now(), before = this.last;
		this.last = { now, upload: status.upload || 0, download: status.download || 0 };
		if (!before || this.last.download < before.download || now === before.now)
			return { up: 0, down: 0 };
		const seconds = (now - before.now) / 1000;
		return { up: (this.last.upload - before.upload) / seconds, down: (this.last.download - before.download) / seconds };
	},

	show(status) {
		const rate = this.sample(status);
		this.samples.push(rate);
		if (this.samples.length > SAMPLES)
			this.samples.shift();
		this.draw(rate);
		this.showTiles(status);
		this.devices.replaceChildren(headgate.table(
			[ _('Device'), _('Connections'), _('Received'), _('Sent') ],
			(status.devices || []).map((d) => [ this.names(d.address), String(d.connections), headgate.bytes(d.download), headgate.bytes(d.upload) ]),
			_('No device has a connection that passes headgate.')));
		this.top.replaceChildren(headgate.table(
			[ _('Destination'), _('Device'), _('Exit'), _('Rule'), _('Received'), _('Sent'), '' ],
			(status.top || []).map((c) => [
				'%s:%s'.format(c.host, c.port), this.names(c.source), (c.chain || []).slice().reverse().join(' → '),
				c.payload ? '%s, %s'.format(c.rule, c.payload) : c.rule, headgate.bytes(c.download), headgate.bytes(c.upload),
				headgate.button(_('Close'), 'remove', () => headgate.call.close(c.id))
			]),
			_('There are no connections.')));
	},

	draw(rate) {
		const highest = Math.max(1024, ...this.samples.map((s) => Math.max(s.up, s.down)));
		const first = SAMPLES - this.samples.length;
		const points = (key) => this.samples.map((s, i) => '%d,%f'.format(first + i, 98 - 94 * s[key] / highest)).join(' ');
		this.down.setAttribute('points', points('down'));
		this.up.setAttribute('points', points('up'));
		this.legend.replaceChildren(
			E('span', { 'class': 'down' }, _('Received: %s').format(headgate.rate(rate.down))),
			E('span', { 'class': 'up' }, _('Sent: %s').format(headgate.rate(rate.up))),
			E('span', _('Top of the graph: %s').format(headgate.rate(highest))));
	},

	showTiles(status) {
		const modes = { rule: _('By rules'), global: _('All by one exit'), direct: _('All direct') };
		const tiles = [ [ _('State'), status.running ? _('running') : _('stopped') ] ];
		if (status.running)
			tiles.push([ _('Version'), String(status.version).replace('headgate ', '') ], [ _('Mode'), modes[status.mode] || status.mode ],
				[ _('Connections'), String(status.connections) ], [ _('Memory'), headgate.bytes(status.memory) ],
				[ _('Received'), headgate.bytes(status.download) ], [ _('Sent'), headgate.bytes(status.upload) ],
				...status.exits.map((exit) => [ exit.name, exit.now || '—' ]));
		this.tiles.replaceChildren(...tiles.map(([ title, value ]) =>
			E('div', { 'class': 'tile', 'title': value }, [ E('small', title), E('strong', value) ])));
	}
});
