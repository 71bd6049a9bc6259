// The page of a scan: what is seen, what keys and pointers do, and what is asked of the server.

import { ask, byId, element, say, send } from '/static/common.js'
import { giveBackLooks, look as noteLook, shownIn, takeLooks } from '/static/looks.js'
import { drawNumbers, site } from '/static/numbers.js'
import { Planes } from '/static/planes.js'
import { listen } from '/static/pointers.js'
import { active, giveBack, takeSeconds } from '/static/reading_time.js'
import { Regions } from '/static/regions.js'
import { Slices } from '/static/slices.js'
import { SliceView, directions, shades } from '/static/view.js'

const WINDOWS = { calcium: [-100, 700], mediastinum: [-160, 240], lung: [-1350, 150] }
const MAP_WINDOW = [0, 300]
const IMAGE_TITLES = { ct: 'CT', healthy: 'Healthy image', map: 'Calcium map' }

const CLOSE_MM = 90 // across the close look at a lesion
const EDGE = 0.1 // of the view: a lesion that lies in it is moved to the middle

const id = location.pathname.split('/')[2]
const reading = new URLSearchParams(location.search).get('reading') === 'consensus' ? 'consensus' : 'own'
const base = `/api/scans/${id}/${reading}`

const facts = document.body.dataset // for tests and benchmarks
let state // as the server last gave it
let method = 'threshold'
let views = []
let slices
let planes
let regions // of the lesions of the method that is shown
let waiting = Promise.resolve() // actions go one after the other
const labels = { heart: false, territories: false }

const look = {
  k: 0, zoom: 1, centre: [0, 0], size: [1, 1], spacing: [1, 1], table: null, cursor: null, tool: 'select', radius: 3,
  stroke: [], line: null, lesions: new Map(), chosen: new Set(), colours: new Map(), outlines: () => regions.outlines(look.k)
}

// Actions

// Returns false for what the server refuses.
function act (action, parts = {}) {
  active()
  const began = performance.now()
  const edited = method // another may be shown once earlier actions are answered
  waiting = waiting.then(async () => {
    const seconds = takeSeconds()
    const looks = takeLooks()
    try {
      const before = state.methods
      take(await send(`${base}/act`, { action, method: edited, version: state.version, seconds, looked_at: looks, ...parts }))
      say('')
      if (action === 'undo' || action === 'redo') showMoved(before)
      facts.answered = performance.now() - began
      return true
    } catch (error) {
      giveBack(seconds)
      giveBackLooks(looks)
      if (error.status === 409) take(await ask(base))
      say(error.message)
      return false
    }
  }).catch(error => { say(error.message); return false })
  return waiting
}

// The method and the lesion that undo or redo has changed.
function showMoved (before) {
  const words = ({ site, suggested, volume_mm3: volume }) => [site, suggested, volume].join()
  const list = ({ status, lesions }) => [status, ...lesions.map(lesion => [lesion.id, words(lesion)])].join()
  const moved = [method, ...Object.keys(before)].find(name => list(before[name]) !== list(state.methods[name]))
  if (!moved) return
  if (moved !== method) showMethod(moved)
  const earlier = new Map(before[moved].lesions.map(lesion => [lesion.id, words(lesion)]))
  const lesion = own().lesions.find(lesion => earlier.get(lesion.id) !== words(lesion))
  if (lesion) choose(lesion.id)
}

function showMethod (name) {
  method = byId('method').value = name
  look.chosen.clear()
  take({})
}

function take (content) {
  state = { ...state, ...content }
  facts.version = state.version
  facts.spacing = look.spacing
  look.lesions = new Map(own().lesions.map(lesion => [lesion.id, lesion]))
  for (const chosen of look.chosen) if (!look.lesions.has(chosen)) look.chosen.delete(chosen)
  regions = new Regions(own().runs, look.size[0])
  drawAll()
  showLesionsInPlanes()
}

const own = () => state.methods[method]
const isRejected = lesion => lesion.site === state.rejected

function choose (lesion) {
  look.chosen = new Set(lesion === undefined ? [] : [lesion])
  if (lesion !== undefined) {
    const { k, i, j } = regions.placeOf(lesion)
    goTo(k)
    look.cursor = [i, j]
    const [view] = views
    if (view) {
      view.fit()
      const { sx, sy, x, y } = view.frame()
      const [at, to] = [[i * sx + x, j * sy + y], [view.canvas.width, view.canvas.height]]
      if (at.some((n, axis) => n < to[axis] * EDGE || n > to[axis] * (1 - EDGE))) look.centre = [i, j]
    }
    if (planesShown()) planes.goTo([i, j, k])
  }
  drawAll()
}

// A close look at the lesion that is selected.
function closeUp () {
  const [view] = views
  view.fit()
  const wide = look.size.map((n, axis) => n * look.spacing[axis])
  const { width, height } = view.canvas
  const scale = Math.min(width, height) / CLOSE_MM
  look.zoom = Math.max(1, Math.min(20, scale / Math.min(width / wide[0], height / wide[1])))
  look.centre = [...look.cursor]
  draw()
}

function showHeart () {
  const [low, high] = state.heart_box
  look.centre = low.map((n, axis) => (n + high[axis]) / 2)
  look.zoom = Math.max(1, Math.min(...look.size.map((n, axis) => n / (high[axis] - low[axis]))))
  draw()
}

function step (by) {
  const ids = own().lesions.filter(lesion => !isRejected(lesion) || look.chosen.has(lesion.id)).map(lesion => lesion.id)
  if (!ids.length) return
  const at = ids.indexOf([...look.chosen][0])
  choose(ids[at < 0 ? (by > 0 ? 0 : ids.length - 1) : (at + by + ids.length) % ids.length])
}

// Drawing

function drawAll () {
  look.directions = directions(state.to_ras)
  drawNumbers(state, method, look.chosen, reading === 'consensus', choose)
  showLooks()
  draw()
}

let asked = false

function draw () {
  if (asked) return
  asked = true
  requestAnimationFrame(() => {
    asked = false
    for (const view of views) {
      view.fit()
      view.look = { ...look, table: view.image === 'map' ? tables.map : tables.ct }
      const done = view.draw(slices.get(view.image, look.k), shownLabels())
      if (!done) continue
      if (state.methods) noteLook(view, method, look.k)
      facts.drawn = look.k
      facts.firstSlice ||= performance.now()
    }
  })
}

const tables = { ct: shades(...WINDOWS.calcium), map: shades(...MAP_WINDOW) }

function shownLabels () {
  return Object.keys(labels).filter(name => labels[name]).flatMap(name => {
    const pixels = slices.get(name, look.k)
    return pixels ? [{ pixels, colours: state.label_colours[name] }] : []
  })
}

let lastStep = 0

function goTo (k) {
  const to = Math.max(0, Math.min(state.size[2] - 1, k))
  lastStep = Math.sign(to - look.k)
  look.k = to
  byId('slice').value = to
  byId('place').textContent = `${to} of 0–${state.size[2] - 1}`
  for (const name of shownImages()) slices.want(name, to, lastStep, draw)
  draw()
}

function shownImages () {
  return [...views.map(view => view.image), ...Object.keys(labels).filter(name => labels[name])]
}

function setWindow () {
  tables.ct = shades(...WINDOWS[byId('window').value])
  if (planesShown()) planes.window(...WINDOWS[byId('window').value])
  draw()
}

function makeViews () {
  const linked = byId('linked').checked
  const names = linked ? state.images.filter(name => name in IMAGE_TITLES) : [byId('image').value || 'ct']
  views = names.map(name => new SliceView(name, IMAGE_TITLES[name], look))
  byId('views').replaceChildren(...views.map(view => view.figure))
  for (const view of views) listen(view, look, { goTo, zoom, draw, use, endStroke, endLine })
  goTo(look.k)
}

// Tools

function given () {
  return Number(byId('site').value)
}

function give (label) {
  if (look.line && look.line.length === 2) return cut(label)
  const lesions = [...look.chosen]
  if (!lesions.length) return say('No lesion is selected. Press N, or click on one.')
  if (label === state.rejected && lesions.every(lesion => isRejected(look.lesions.get(lesion)))) return takeBack(lesions)
  return label === state.rejected ? act('reject', { lesions }) : act('assign', { lesions, site: label })
}

// Lesions that were rejected, or left out, count again: for the site that was suggested, or that is chosen for tools.
function takeBack (lesions) {
  const suggested = state.sites.find(known => known.name === look.lesions.get(lesions[0]).suggested)
  return act('assign', { lesions, site: suggested && state.given_sites.includes(suggested.label) ? suggested.label : given() })
}

// The lesion that decides the score counts for its artery, or is rejected; then the next one that decides is shown.
async function decide (counts) {
  const { lesion, artery } = state.headline.decision
  if (method !== 'threshold') showMethod('threshold')
  const isDone = await (counts ? act('assign', { lesions: [lesion], site: artery }) : act('reject', { lesions: [lesion] }))
  if (isDone) choose(state.headline.decision ? state.headline.decision.lesion : lesion)
}

function cut (label) {
  const [[i0, j0], [i1, j1]] = look.line
  look.line = null
  const [lesion] = look.chosen
  return act('cut', { lesion, point: [look.k, j0 - 0.5, i0 - 0.5], normal: [0, i1 - i0, j0 - j1], label })
}

function use (i, j) {
  if (!state.methods) return // before the review is open
  const lesion = regions.lesionAt(look.k, j, i)
  if (look.tool === 'select') {
    if (lesion === undefined) return choose()
    const found = look.lesions.get(lesion)
    if (found.left_out !== null) takeBack([lesion])
    look.chosen = new Set([lesion])
    drawAll()
  } else if (look.tool === 'pick') {
    if (inside(i, j)) act('pick', { voxel: [look.k, Math.floor(j), Math.floor(i)], site: given() })
  } else if (look.tool === 'cut') {
    if (!look.line || look.line.length === 2) look.line = []
    look.line.push([i, j])
    if (look.line.length === 2) endLine()
    draw()
  } else {
    look.stroke = [[i, j]]
    endStroke()
  }
}

const inside = (i, j) => i >= 0 && j >= 0 && i < look.size[0] && j < look.size[1]

function endLine () {
  const [[i0, j0], [i1, j1]] = look.line
  if (Math.hypot(i1 - i0, j1 - j0) < 0.5 || !inside(i0, j0) || !inside(i1, j1)) look.line = null
  else if (look.chosen.size !== 1) {
    look.line = null
    say('Select the lesion that is to be cut first: click on it, or press N.')
  } else say('The part on the side of the short stroke goes to another site: press 1 to 9 or its button, or reject it.', true)
}

function endStroke () {
  const kept = look.stroke.filter(([i, j]) => inside(i, j))
  const every = Math.ceil(kept.length / 400)
  const points = kept.filter((_, n) => n % every === 0 || n === kept.length - 1).map(([i, j]) => [look.k, j - 0.5, i - 0.5])
  look.stroke = []
  if (points.length) act('paint', { points, radius_mm: look.radius, flat: true, label: look.tool === 'erase' ? 0 : given() })
  draw()
}

function setTool (tool) {
  look.tool = tool
  look.line = null
  for (const button of byId('tools').querySelectorAll('button')) button.setAttribute('aria-pressed', String(button.dataset.tool === tool))
  draw()
}

function setRadius (radius) {
  look.radius = Math.max(0.5, Math.min(20, radius))
  byId('radius').value = look.radius
  draw()
}

function zoom (factor, place) {
  const before = look.zoom
  look.zoom = Math.max(1, Math.min(20, look.zoom * factor))
  const at = place || look.cursor || look.centre
  const part = 1 - before / look.zoom
  look.centre = look.centre.map((c, n) => look.zoom === 1 ? look.size[n] / 2 : c + (at[n] - c) * part)
  draw()
}

// Keys

const KEYS = {
  x: () => give(state.rejected),
  n: () => step(1),
  p: () => step(-1),
  u: rejectRest,
  a: confirmScore,
  r: () => own().status === 'reviewed' ? act('reviewed', { on: false }) : confirmScore(),
  0: zero,
  z: () => act('undo'),
  y: () => act('redo'),
  s: () => setTool('select'),
  g: () => setTool('pick'),
  b: () => setTool('brush'),
  e: () => setTool('erase'),
  c: () => setTool('cut'),
  '[': () => setRadius(look.radius - 0.5),
  ']': () => setRadius(look.radius + 0.5),
  f: showHeart,
  d: () => look.cursor && closeUp(),
  '+': () => zoom(1.25),
  '-': () => zoom(0.8),
  w: () => next(byId('window')),
  m: () => next(byId('method')),
  h: () => byId('heart').click(),
  t: () => byId('territories').click(),
  l: () => byId('linked').click(),
  v: () => byId('planes').click(),
  '?': () => byId('help').showModal(),
  ArrowUp: () => goTo(look.k + 1),
  ArrowDown: () => goTo(look.k - 1),
  PageDown: () => leave(1),
  PageUp: () => leave(-1),
  Escape: giveUp,
  Enter: () => look.cursor && use(...look.cursor)
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

function next (select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length
  select.dispatchEvent(new Event('change'))
}

function typed (event) {
  const { target, key } = event
  if (byId('help').open || event.altKey || event.metaKey) return
  const inField = target.matches('select, input[type=number], input[type=range]')
  if (inField && (key.startsWith('Arrow') || /^[0-9.]$/.test(key) || key === 'Enter')) return
  if (key === 'Enter' && target.matches('button, a, input')) return
  if (event.shiftKey && ARROWS[key]) {
    const by = event.ctrlKey ? 10 : 1
    const from = look.cursor || look.centre
    look.cursor = from.map((c, n) => Math.max(0.5, Math.min(look.size[n] - 0.5, Math.floor(c) + 0.5 + by * ARROWS[key][n])))
    event.preventDefault()
    return draw()
  }
  if (event.ctrlKey) return
  const own = /^[1-9]$/.test(key) ? () => give(state.given_sites[Number(key) - 1]) : KEYS[key.length === 1 ? key.toLowerCase() : key]
  if (own) {
    event.preventDefault()
    active()
    own()
  }
}

// Of what is begun or selected, first the last.
function giveUp () {
  if (!byId('message').hidden) say('')
  if (look.line) look.line = null
  else choose()
  draw()
}

const isOutside = lesion => state.given_sites.indexOf(lesion.site) > 4

// Candidates at the start that were never shown.
function unseen () {
  return new Set(own().unseen.filter(id => !shownIn(method).has(id)))
}

// How many candidates were shown, and lesions outside the arteries.
function looks () {
  const count = own().candidates
  const outside = own().lesions.filter(isOutside)
  const looked = new Set([...own().looked_at, ...shownIn(method)])
  const text = `${count - unseen().size} of ${count} candidates looked at`
  return {
    arteries: count ? text : '',
    outside: outside.length ? `Outside the arteries: ${outside.filter(lesion => looked.has(lesion.id)).length} of ${outside.length}` : ''
  }
}

function showLooks () {
  const { arteries } = looks()
  const head = state.headline.state // how many they were when the clinical score was confirmed
  const isLater = method === 'threshold' && head.includes('looked at') && !head.includes(arteries)
  byId('looked').textContent = method === 'threshold' ? arteries + (isLater ? ' by now' : '') : arteries && `Map: ${arteries}`
  byId('looked-outside').textContent = looks().outside
}

// A score is confirmed as far as it was looked at; the reader is asked where candidates were never shown.
function confirmScore () {
  const decision = state.headline.decision
  const isOpen = method === 'threshold' && decision && unseen().has(decision.lesion)
  const text = `${isOpen ? `${decision.question} It decides the score. ` : ''}${looks().arteries}. Never shown: ${unseen().size}. Confirm the score? The record will say so.`
  if (!unseen().size || confirm(text)) return act('accept')
  if (isOpen) choose(decision.lesion)
}

function rejectRest () {
  const rest = own().lesions.filter(lesion => lesion.site === state.unassigned)
  const count = rest.filter(lesion => unseen().has(lesion.id)).length
  if (!count || confirm(`Candidates that this rejects: ${rest.length}. Never shown: ${count}. The record will say so.`)) act('reject-rest')
}

function zero () {
  const count = own().lesions.filter(lesion => !isOutside(lesion) && !isRejected(lesion)).length
  const calciumMap = state.methods.decomposition
  const isMapOpen = method === 'threshold' && calciumMap && calciumMap.status !== 'reviewed' && calciumMap.total.lesions > 0
  const map = isMapOpen ? ` The calcium map's score of ${Math.round(calciumMap.total.clinical_agatston).toLocaleString('en')} goes, too.` : ''
  const score = Math.round(own().total.clinical_agatston).toLocaleString('en')
  const text = `This discards the score of ${score}, rejects its candidates (${count}) and confirms 0.${map} Never shown: ${unseen().size}. The record will say so.`
  if (!(count || unseen().size || map) || confirm(text)) act('no-calcium')
}

function neighbour (by) {
  const kept = JSON.parse(sessionStorage.getItem('order') || '[]')
  const isHere = path => path.split('?')[0] === id
  const order = kept.some(isHere) ? kept : state.order
  return order[order.findIndex(isHere) + by]
}

// The server reads the next scan while this one is looked at.
function prepareNext () {
  const next = neighbour(1)
  if (next && reading === 'own' && !next.includes('?')) ask(`/api/scans/${next}/own`).then(() => { facts.next = 'ready' }).catch(() => {})
}

function leave (by) {
  const to = neighbour(by)
  if (to) waiting.then(() => { location.href = `/scan/${to}${reading === 'consensus' && !to.includes('?') ? '?reading=consensus' : ''}` })
  else say(by > 0 ? 'This is the last scan of the list.' : 'This is the first scan of the list.', true)
}

async function exported (path, words) {
  const button = byId(path)
  const title = button.textContent
  const began = performance.now()
  const showTime = () => { button.textContent = `${title} … ${Math.floor((performance.now() - began) / 1000)} s` }
  const clock = setInterval(showTime, 1000)
  button.disabled = true
  showTime()
  try {
    await waiting
    say(words(await send(`${base}/${path}`, {})), true)
  } catch (error) {
    say(error.message)
  } finally {
    clearInterval(clock)
    button.textContent = title
    button.disabled = false
  }
}

// Planes and 3-D: kept as they were while they are hidden, because drawing them is slow.

const planesShown = () => planes && planes.ready && byId('planes').checked

async function togglePlanes () {
  const on = byId('planes').checked
  byId('planes-view').hidden = !on
  if (!on) return
  try {
    if (!planes) {
      planes = new Planes(byId('niivue'), base, state, goTo)
      say('Loading the heart …', true)
      await planes.open(WINDOWS[byId('window').value], state.sites)
      say('')
    }
    if (!planesShown()) return
    planes.window(...WINDOWS[byId('window').value])
    await showLesionsInPlanes()
    planes.goTo([...(look.cursor || look.centre), look.k])
    facts.planes = 'shown'
  } catch (error) {
    say(`Planes and 3-D cannot be drawn (${error.message}). They need WebGL 2.`)
  }
}

async function showLesionsInPlanes () {
  if (!planesShown()) return
  await planes.showLesions(method, state.version).catch(error => say(error.message))
}

function connect () {
  byId('slice').addEventListener('input', event => goTo(Number(event.target.value)))
  byId('window').addEventListener('change', setWindow)
  byId('image').addEventListener('change', makeViews)
  byId('linked').addEventListener('change', makeViews)
  byId('planes').addEventListener('change', togglePlanes)
  byId('radius').addEventListener('change', event => setRadius(Number(event.target.value)))
  for (const name of Object.keys(labels)) byId(name).addEventListener('change', event => { labels[name] = event.target.checked; goTo(look.k) })
  for (const button of byId('tools').querySelectorAll('button')) button.addEventListener('click', () => setTool(button.dataset.tool))
  byId('method').addEventListener('change', event => showMethod(event.target.value))
  for (const [name, key] of [['reviewed', 'r'], ['rest', 'u'], ['zero', '0'], ['undo', 'z'], ['redo', 'y'], ['next', 'PageDown'], ['previous', 'PageUp'], ['help-button', '?']]) byId(name).addEventListener('click', KEYS[key])
  byId('counted').addEventListener('click', () => decide(true))
  byId('not-counted').addEventListener('click', () => decide(false))
  byId('export').addEventListener('click', () => exported('export', content => `Exported to the folder ${content.folder} of the results.`))
  byId('project').addEventListener('click', () => exported('project', content => `Added to scan ${content.scan} of the project.`))
  document.addEventListener('keydown', typed)
  document.addEventListener('looked', showLooks)
  new ResizeObserver(draw).observe(byId('views'))
  addEventListener('pagehide', () => {
    const seconds = takeSeconds()
    const looks = takeLooks()
    if (seconds > 1 || Object.keys(looks).length) send(`${base}/time`, { seconds, looked_at: looks }, true).catch(() => {})
  })
}

// The CT, while the server still opens the review.
function showFirst () {
  look.size = state.size.slice(0, 2)
  look.spacing = state.spacing_mm.slice(0, 2)
  look.k = state.first_slice
  byId('slice').max = state.size[2] - 1
  regions = new Regions([], look.size[0])
  slices = new Slices(base, state.size[2], error => say(error.message))
  makeViews()
  showHeart()
}

function fill () {
  document.title = `CAC review: ${state.name}`
  byId('name').textContent = state.name
  byId('reader').textContent = `Reader: ${state.reader}${reading === 'consensus' ? ', consensus' : ''}`
  look.colours.set(state.rejected, '#b0b0b0')
  look.rejected = state.rejected
  for (const known of state.sites) look.colours.set(known.label, `rgb(${known.colour.join()})`)
  byId('image').replaceChildren(...state.images.filter(name => name in IMAGE_TITLES).map(name => element('option', { value: name }, IMAGE_TITLES[name])))
  byId('method').replaceChildren(...Object.entries(state.methods).map(([name, found]) => element('option', { value: name }, found.title)))
  byId('method-bar').hidden = Object.keys(state.methods).length < 2
  byId('territories-label').hidden = !state.images.includes('territories')
  byId('linked-label').hidden = byId('image').options.length < 2
  byId('project').hidden = !state.project
  const sites = state.given_sites.map(label => state.sites.find(known => known.label === label))
  byId('site').replaceChildren(...sites.map(known => element('option', { value: known.label }, known.name)))
  byId('site').value = 2
  const reject = element('button', { id: 'reject', title: 'X' }, 'Reject')
  reject.addEventListener('click', () => give(state.rejected))
  byId('sites').replaceChildren(...sites.map((known, n) => {
    const button = element('button', { title: `${known.full_name} (${n + 1})` }, site(known, `${n + 1} ${known.name}`))
    button.addEventListener('click', () => give(known.label))
    return button
  }), reject)
}

async function start () {
  state = await ask(`${base}/first`)
  showFirst()
  take(await ask(base))
  fill()
  loaded()
  connect()
  makeViews()
  const first = own().lesions.find(lesion => !isRejected(lesion))
  if (first && look.k === state.first_slice) {
    choose(first.id)
    closeUp()
  }
  setTimeout(prepareNext, 1000)
}

function loaded () {
  document.querySelector('main').removeAttribute('aria-busy')
  byId('loading').hidden = true
}

start().catch(error => { loaded(); say(error.message) })
