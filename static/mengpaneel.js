(() => {
const dom = (name) => Reflect.get(Document.prototype, name, document)
const own = (name) => Object.hasOwn(window, name) && window[name]
if (own("Mengpaneel")) return

const { fetch, origin } = window
const { dataset, nonce } = dom("currentScript") || dom("documentElement")
const capable = "X-Mengpaneel-Flush-Capable"
const routes = { people: "engage", groups: "groups", events: "track" }
const ready = { people: [], groups: [], events: [] }
const busy = { people: [], groups: [], events: [] }
const queue = []
const queued = []
let debug = "debug" in dataset, page, main, stated, twin, current, blocked, leaving

const safely = (call) => {
	try {
		return call()
	} catch (e) {
		debug && console.debug("Mengpaneel", e)
	}
}

const make = (target, [names, args, ...rest]) => {
	let owner
	for (const name of names) [owner, target] = [target, name in {} || target[name]]
	target = target.apply(owner, args)
	rest[0] && make(target, rest)
}

const perform = (call) => {
	debug && console.debug("Mengpaneel", JSON.stringify(call), debug)
	if (/people|_group/.test(call[0]) && main.get_property("$user_id")) twin.identify(main.get_distinct_id())
	make(/people|alias|identify|_group|^track/.test(call[0]) ? twin : main, call)
	if (call[0][0] == "alias") main.unregister("__alias")
}

const flush = () =>
	safely(() => {
		if (blocked) return back(queue.splice(0))
		if (!main) return
		for (current of queue.splice(0)) safely(() => perform(current.call))
		current = 0
		send()
	})

const stand = (owner, root) =>
	new Proxy([], {
		get: (target, name) => {
			if (name in target) return target[name]
			if (name == "people") return stand(({ people }) => people, target)
			return (...args) => {
				const method = (mixpanel) => owner(mixpanel)[name](...args)
				;(root || target).push(function () {
					safely(() => method(this))
				})
				return name == "get_group" && stand(method, target)
			}
		},
	})

const boot = () => {
	const { token, config, library } = page
	const root = (window.mixpanel = stand((mixpanel) => mixpanel))
	const script = dom("createElement").call(document, "script")
	root.__SV = 1.2
	root.__loaded = root.config = 0
	root._i = [[token, config, "mixpanel"]]
	root.init = (token, init, name) => {
		if (!name) return Object.assign(config, init)
		root[name] = stand((mixpanel) => mixpanel)
		root._i.push([token, init, name])
	}
	script.nonce = nonce
	script.onload = check
	script.src = safely(() => trustedTypes.createPolicy("mengpaneel", { createScriptURL: (url) => url }).createScriptURL(library)) || library
	dom("head").append(script)
}

const adopt = () =>
	own("mixpanel")?.push?.(function () {
		main || live(this)
	})

const check = () => {
	adopt()
	if (main) return
	blocked = true
	retake("doubt")
	flush()
}

const live = (mixpanel) => {
	main = mixpanel
	blocked = false
	safely(() => {
		stated = "true; project=" + main.config.token
		twin = Object.create(main)
		twin.people = Object.create(main.people)
		twin.config = Object.create(main.config)
		twin.config.api_transport = "sendBeacon"
		for (const key in main) if (main[key] === true) twin[key] = false
		for (const key in main.people) if (main.people[key] == main) twin.people[key] = twin
		for (const kind in routes)
			main.add_hook("before_send_" + kind, (message) => {
				if (!current) return message
				current.done = ready[kind].push([message, current])
				return null
			})
	})
	flush()
}

const send = () => {
	for (const kind in routes)
		while (ready[kind][0] && (leaving || !busy[kind][0])) post(kind, ready[kind].splice(0, 20))
}

const post = async (kind, batch) => {
	const url = `${main.get_api_host(kind)}/${main.config.api_routes[routes[kind]]}?verbose=1&ip=${+main.config.ip}`
	const body = new URLSearchParams({ data: JSON.stringify(batch.map(([message]) => message)) })
	const items = batch.map(([, item]) => item)
	const request = (keepalive) => fetch(url, { method: "POST", body, keepalive })
	if (leaving) return navigator.sendBeacon(url, body) || back(items)
	busy[kind] = items
	const answer = await request(true)
		.catch(() => leaving || request().catch(() => (blocked = navigator.onLine)))
		.then((answer) => answer.json())
		.catch(() => 0)
	busy[kind] = []
	if (leaving) return
	if (answer?.status) save("doubt", [])
	else back(items)
	if (blocked) retake("doubt")
	send()
}

const back = (items, doubt) => {
	items.map((item) => (item.done = false))
	for (const all of new Set(items.map((item) => item.all))) {
		const { text, signature } = all[0]
		const calls = []
		all.map((item, i) => item.done || (item.done = calls.push(i)))
		const left = { text, signature, calls, blocked }
		const body = JSON.stringify(left)
		const url = signature && page.fallback
		if (doubt) add("doubt", left)
		else if (url && !leaving)
			fetch(url, { method: "POST", body, keepalive: true }).then(
				({ status }) => status > 428 && add("left", left),
				() => leaving || add("left", left)
			)
		else (url && navigator.sendBeacon(url, body)) || add("left", left)
	}
}

const take = ({ text, signature, calls: only }) => {
	const data = JSON.parse(text)
	const all = []
	for (const [once, calls] of data.calls || [[0, data]]) {
		const again = load("made").includes(once)
		if (once && !again) add("made", once)
		for (const call of calls) all.push({ call, text, signature, all, done: only ? !only.includes(all.length) : again })
	}
	queue.push(...all.filter((item) => !item.done))
	flush()
}

const turn = () => {
	queued.splice(0, 1).map(take)
	return new Promise((done) => setTimeout(done, 200))
}

const retake = (key) => {
	const list = load(key)
	save(key, [])
	list.map(take)
}

const load = (key) => safely(() => JSON.parse(localStorage[page.token + "_mengpaneel_" + key] || 0)) || []
const save = (key, list) => safely(() => (localStorage[page.token + "_mengpaneel_" + key] = JSON.stringify(list.slice(-200))))
const add = (key, value) => save(key, [...load(key), value])

const scan = () => {
	for (let script; (script = dom("scripts").mengpaneel); script.remove()) {
		const { text, dataset } = script
		const first = !page
		safely(() => {
			page = JSON.parse(text)
			debug = page.debug || debug
			if (first) {
				if (page.library && !own("mixpanel")) safely(boot)
				adopt()
				retake("left")
			}
			if (page.calls) queued.push({ text, ...dataset })
			if (!page.races || !navigator.locks?.request("mengpaneel", turn).catch(turn)) turn()
		})
	}
}

window.Mengpaneel = { use: live }

const tells = (url) =>
	main && url && !blocked && safely(() => {
		const { href } = new URL(url, dom("baseURI"))
		return href.startsWith(origin + "/") && !href.startsWith(main.config.api_host) && !dataset.exclude?.split(" ").some((url) => url && href.startsWith(origin + url))
	})

const receive = (url, get) =>
	safely(() => {
		const text = url.startsWith(origin + "/") && get("X-Mengpaneel-Calls")
		if (text && stated.includes(get("X-Mengpaneel-Project") || "")) take({ text, signature: get("X-Mengpaneel-Signature") })
	})

window.fetch = async function (input, init) {
	const request = input instanceof Request
	const headers = tells(request ? input.url : input) && safely(() => (request ? input.headers : new Headers(init?.headers)))
	if (!headers || headers.has("X-Sec-Purpose")) return fetch.apply(this, arguments)
	init = request ? init : new Proxy(init || {}, { get: (target, name) => ({ headers })[name] || target[name] })
	headers.set(capable, stated)
	const answer = fetch.call(this, input, init)
	headers.delete(capable)
	const response = await answer
	receive(response.url, (name) => response.headers.get(name))
	return response
}

function listen() {
	receive(this.responseURL, (name) => this.getResponseHeader(name))
}

const { open } = XMLHttpRequest.prototype
XMLHttpRequest.prototype.open = function (_, url) {
	open.apply(this, arguments)
	if (tells(url)) {
		this.setRequestHeader(capable, stated)
		this.addEventListener("readystatechange", listen, { once: true })
	}
}

addEventListener("pageshow", () => (leaving = false))
addEventListener("pagehide", () => {
	leaving = true
	queued.splice(0).map(take)
	send()
	back(queue.splice(0))
	back(busy.events, true)
})

const begin = () => {
	scan()
	addEventListener("DOMContentLoaded", scan)
	addEventListener("turbo:load", scan)
	addEventListener("load", check)
}

dom("prerendering") ? addEventListener("prerenderingchange", begin, true) : begin()
})()
