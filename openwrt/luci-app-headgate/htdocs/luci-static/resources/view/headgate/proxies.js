'use strict';
'require view';
'require poll';
'require headgate.common as headgate';

const E = headgate.E;

return view.extend({
	handleSaveApply: null,
	handleSave: null,
	handleReset: null,

	load() {
		return L.resolveDefault(headgate.call.proxies(), { running: false });
	},

	render(state) {
		this.body = E('div');
		this.show(state);
		poll.add(() => this.refresh(), 4);
		return headgate.page(E('h2', _('Proxies')), this.body);
	},

	refresh() {
		return L.resolveDefault(headgate.call.proxies(), { running: false }).then((state) => this.show(state));
	},

	delay(node) {
		if (!node || node.delay === null || node.delay === undefined)
			return '';
		return node.delay > 0 ? _('%d ms').format(node.delay) : _('no answer');
	},

	show(state) {
		if (!state.running)
			return this.body.replaceChildren(headgate.stopped());
		this.body.replaceChildren(...state.groups.map((group) => this.group(group, state.nodes)));
	},

	group(group, nodes) {
		/* The other kinds choose by themselves; a choice by hand pins them until it is taken back. */
		const manual = group.type === 'Selector' || group.type === 'URLTest' || group.type === 'Fallback';
		return E('div', [
			E('div', { 'class': 'bar' }, [
				E('h3', { 'style': 'margin: 0' }, group.name),
				E('span', [ group.type, group.now ? ' → ' + group.now : '' ]),
				headgate.button(_('Test latency'), 'action', () => headgate.call.delay(group.name))
			]),
			E('div', { 'class': 'nodes' }, group.all.map((name) => {
				const node = nodes[name];
				const button = headgate.button([ name, E('small', [ node ? node.type : '', ' ', this.delay(node) ]) ], 'neutral',
					() => manual ? headgate.call.select(group.name, name).then((answer) => this.refresh().then(() => answer)) : null);
				button.classList.add('node');
				if (name === group.now)
					button.classList.add('chosen');
				return button;
			}))
		]);
	}
});
