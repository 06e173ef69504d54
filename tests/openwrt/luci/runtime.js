/* LuCI's client side by its published interfaces, as much of it as headgate's pages call: the loader
   with its `'require'` lines, dom, rpc, uci, poll, ui, and forms that print their options. It stands in
   for LuCI where LuCI cannot be had (CI); what it does not know it refuses, so that a page cannot lean
   on something that LuCI may not have. */

'use strict';

(() => {
	const strict = (name, object) => new Proxy(object, {
		get(target, key) {
			if (key in target || typeof key === 'symbol' || key === 'then')
				return target[key];
			throw new Error('LuCI has no %s.%s'.format(name, key));
		}
	});

	/* The conversions of LuCI's String.format that the pages use. */
	String.prototype.format = function(...values) {
		let next = 0;
		return this.replace(/%(?:(\d+)(?:\.(\d+))?)?([sdfm])(B)?/g, (whole, base, digits, kind, unit) => {
			const value = values[next++];
			if (kind === 's')
				return String(value);
			if (kind === 'd')
				return String(Math.trunc(value));
			if (kind === 'f')
				return String(Number(value));
			let n = Number(value), i = 0;
			for (; n >= base && i < 4; i++)
				n /= base;
			return n.toFixed(i ? digits || 0 : 0) + ' ' + [ '', 'Ki', 'Mi', 'Gi', 'Ti' ][i] + (unit || '');
		});
	};

	/* As LuCI does it: what stands in a list is text, "undefined" too, and a lone string is HTML. */
	const append = (node, children) => {
		if (Array.isArray(children))
			children.forEach((child) => node.append(child));
		else if (children instanceof Node)
			node.appendChild(children);
		else if (children !== null && children !== undefined)
			node.innerHTML = `${children}`;
	};

	const create = (name, attributes, children) => {
		const node = document.createElement(name);
		if (!(attributes instanceof Object) || Array.isArray(attributes))
			[ attributes, children ] = [ {}, attributes ];
		for (const [ key, value ] of Object.entries(attributes)) {
			if (value === null || value === undefined)
				continue;
			if (typeof value === 'function')
				node.addEventListener(key, value);
			else
				node.setAttribute(key, value);
		}
		append(node, children);
		return node;
	};
	const dom = strict('dom', { create, elem: (node) => node instanceof Node });

	const ask = async (object, method, params) => {
		const answer = await fetch('/ubus' + location.search, { method: 'POST', body: JSON.stringify({ object, method, params }) });
		const [ status, data ] = await answer.json();
		if (status)
			throw new Error('%s.%s: ubus status %d'.format(object, method, status));
		return data;
	};

	const rpc = strict('rpc', {
		declare: ({ object, method, params, expect }) => async (...values) => {
			const named = {};
			(params || []).forEach((name, i) => { named[name] = values[i]; });
			const data = await ask(object, method, named);
			if (!expect)
				return data;
			const [ [ key, otherwise ] ] = Object.entries(expect);
			return key === '' ? data : (data && data[key] !== undefined ? data[key] : otherwise);
		}
	});

	const loaded = {};
	const uci = strict('uci', {
		load: async (name) => { loaded[name] = await ask('uci', 'get', { config: name }); return [ name ]; },
		changes: async () => ({ headgate: [ [ 'set', 'main', 'final', 'DIRECT' ] ] }),
		sections: (name, type) => (loaded[name] || []).filter((s) => !type || s['.type'] === type),
		get: (name, id, option) => ((loaded[name] || []).find((s) => s['.name'] === id) || {})[option]
	});

	const poll = strict('poll', { add: (call, seconds) => { setInterval(call, Math.min(seconds, 2) * 1000); } });

	const ui = strict('ui', {
		createHandlerFn: (self, call) => function(event) {
			const button = event.currentTarget;
			button.disabled = true;
			return Promise.resolve(call.call(self, event)).finally(() => { button.disabled = false; });
		},
		addNotification: (title, children, level) => document.getElementById('notifications').appendChild(create('div', { 'class': level }, children)),
		changes: { apply: () => ask('uci', 'apply', {}) }
	});

	class Option {
		constructor(name, title) { Object.assign(this, { name, title, keylist: [], vallist: [] }); }
		value(key, title) { this.keylist.push(String(key)); this.vallist.push(title === undefined ? String(key) : title); }
		cfgvalue(section) { return uci.get('headgate', section, this.name); }
		depends() {}
	}
	class Section {
		constructor(type, title) { Object.assign(this, { type, title, options: [] }); }
		tab() {}
		option(Kind, name, title) { const o = new Kind(name, title); this.options.push(o); return o; }
		taboption(_tab, ...rest) { return this.option(...rest); }
		sections(config) { return uci.sections(config, this.type); }
	}
	class NamedSection extends Section {
		constructor(id, type, title) { super(type, title); this.id = id; }
		sections(config) { return uci.sections(config).filter((s) => s['.name'] === this.id); }
	}
	class Map {
		constructor(config, title, description) { Object.assign(this, { config, title, description, parts: [] }); }
		section(Kind, ...rest) { const s = new Kind(...rest); this.parts.push(s); return s; }
		async render() {
			await uci.load(this.config);
			return create('div', { 'class': 'cbi-map' }, [ create('p', this.description || ''), ...this.parts.map((part) => create('div', { 'class': 'cbi-section' }, [
				create('h3', part.title || ''),
				...part.sections(this.config).map((s) => create('dl', part.options.flatMap((o) => [
					create('dt', o.title), create('dd', o.password ? '***' : (o.textvalue ? o.textvalue(s['.name']) : [ [].concat(s[o.name] || []).join(', ') ]))
				])))
			])) ]);
		}
	}
	const kinds = [ 'Value', 'Flag', 'ListValue', 'MultiValue', 'DynamicList', 'TextValue', 'DummyValue', 'Button' ];
	const form = strict('form', { Map, NamedSection, TypedSection: Section, GridSection: Section, TableSection: Section,
		...Object.fromEntries(kinds.map((name) => [ name, class extends Option {} ])) });
	const widgets = strict('widgets', { NetworkSelect: class extends Option {} });

	const L = strict('L', {
		env: {},
		hasViewPermission: () => !location.search.includes('viewer'),
		resolveDefault: (promise, otherwise) => Promise.resolve(promise).catch(() => otherwise),
		resource: (path) => '/luci-static/resources/' + path
	});

	const baseclass = { extend: (members) => members };
	const view = { extend: (members) => ({ handleSave: () => Promise.resolve(), ...members }) };
	const modules = { view, baseclass, dom, form, uci, rpc, poll, ui, 'tools.widgets': widgets };

	const load = async (name) => {
		if (!(name in modules))
			modules[name] = await evaluate(name);
		return modules[name];
	};
	const evaluate = async (name) => {
		const answer = await fetch('/luci-static/resources/%s.js'.format(name.replace(/\./g, '/')));
		if (!answer.ok)
			throw new Error('there is no module ' + name);
		const source = await answer.text(), names = [], values = [];
		for (const [ , module, as ] of source.matchAll(/^'require ([\w.-]+)(?: as (\w+))?';$/gm)) {
			names.push(as || module.split('.').pop());
			values.push(await load(module));
		}
		return new Function('L', '_', ...names, source)(L, (text) => text, ...values);
	};

	window.show = async (name) => {
		const page = await load('view.headgate.' + name);
		const data = page.load ? await page.load() : undefined;
		document.getElementById('view').replaceChildren(await page.render(data));
		window.shown = page;
	};
})();
