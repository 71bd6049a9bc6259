// The work list: what to look at first and why, filters, agreement.

import { ask, byId, element, interval, number, say, send, time } from '/static/common.js'

let about
let ahead // the scan that the server reads while the list is looked at

const inputs = ['text', 'state', 'category', 'warned', 'order']

const path = row => row.reading === 'own' ? row.id : `${row.id}?reading=${row.reading}`

const done = row => ['reviewed', 'refused'].indexOf(row.state) + 1 // those still to be read first

function shown () {
  const text = byId('text').value.toLowerCase()
  const [state, category, warned] = ['state', 'category', 'warned'].map(id => byId(id).value)
  const rows = about.rows.filter(row => {
    const words = [row.name, row.patient, row.group, row.problem, ...row.reasons, ...row.warnings].join(' ').toLowerCase()
    const kinds = { '': true, severe: row.severe, any: row.warnings.length > 0, none: row.warnings.length === 0 }
    return words.includes(text) && (!state || row.state === state) && (!category || row.category === category) && kinds[warned]
  })
  const order = byId('order').value
  if (order === 'need') rows.sort((a, b) => done(a) - done(b) || b.need - a.need)
  if (order === 'agatston') rows.sort((a, b) => (b.agatston ?? -1) - (a.agatston ?? -1))
  return rows
}

function draw () {
  const rows = shown()
  byId('scans').tBodies[0].replaceChildren(...rows.map(line))
  const reviewed = about.rows.filter(row => row.state === 'reviewed').length
  const refused = about.rows.filter(row => row.state === 'refused').length
  byId('count').textContent = `${rows.length} of ${about.rows.length} scans, ${reviewed} reviewed${refused ? `, ${refused} refused` : ''}`
  const first = rows.find(row => !done(row))
  byId('start').hidden = !first
  if (first) byId('start').href = `/scan/${path(first)}`
  if (first && !ahead) ahead = ask(`/api/scans/${first.id}/${first.reading}`).then(() => { document.body.dataset.ahead = first.id }).catch(() => {})
  sessionStorage.setItem('order', JSON.stringify(rows.filter(row => row.id).map(path)))
  sessionStorage.setItem('filters', JSON.stringify(inputs.map(id => byId(id).value)))
}

function line (row) {
  const cell = (text, kind = null) => element('td', { class: kind }, text)
  const consensus = element('td', { class: 'double', hidden: !about.double })
  if (row.consensus) consensus.append(element('a', { href: `/scan/${row.id}?reading=consensus` }, row.consensus))
  return element('tr', {},
    element('td', { class: 'wrap' }, row.id ? element('a', { href: `/scan/${path(row)}` }, row.name) : row.name),
    cell(row.problem && row.id ? 'not readable' : row.state), cell(row.status), cell(number(row.agatston), 'number'),
    cell(interval(row.interval)), cell(row.category.replace('-', '–')), reasons(row),
    cell(time(row.seconds), 'number'), consensus)
}

// Why to look at a scan; of severe warnings in their colour. Other warnings are counted, and stand on the scan's page.
function reasons (row) {
  const lines = row.problem ? [row.problem] : [...row.reasons]
  if (row.drawn) lines.push('Drawn at random to be checked.')
  const others = row.other_warnings
  if (others) lines.push(`${others} ${lines.length ? 'other ' : ''}warning${others > 1 ? 's' : ''}`)
  return element('td', { class: row.severe ? 'wrap severe' : 'wrap' }, ...lines.map(line => element('div', {}, line)))
}

function estimate (found) {
  if (!found || found.estimate === null) return '–'
  const ends = found.low === null ? '' : ` [${found.low.toFixed(2)}, ${found.high.toFixed(2)}]`
  return found.estimate.toFixed(2) + ends
}

async function start () {
  about = await ask('/api/work')
  byId('reader').textContent = `Reader: ${about.reader}`
  for (const cell of document.querySelectorAll('th.double')) cell.hidden = !about.double
  byId('agreement').hidden = !about.agreement
  const kept = JSON.parse(sessionStorage.getItem('filters') || '[]')
  inputs.forEach((id, n) => { if (kept[n] !== undefined) byId(id).value = kept[n] })
  for (const id of inputs) byId(id).addEventListener('input', draw)
  byId('filters').addEventListener('submit', event => event.preventDefault())
  if (kept.length === 0 && about.double) byId('order').value = 'listed' // each reader's own order
  if (about.rows.some(row => row.hidden)) hideBlind()
  byId('revoke').addEventListener('click', revoke)
  draw()
  if (about.agreement) await drawAgreement()
}

// A blind reader neither filters nor orders by what is hidden.
function hideBlind () {
  for (const [id, plain] of [['category', ''], ['warned', ''], ['order', 'listed']]) {
    byId(id).value = plain
    byId(id).parentElement.hidden = true
  }
}

function revoke () {
  if (!confirm('End your address and all your sessions? The terminal of the server shows your new address.')) return
  send('/revoke', {}).then(() => location.reload()).catch(error => say(error.message))
}

async function drawAgreement () {
  const { pairs } = await ask('/api/agreement')
  byId('agreement').querySelector('tbody').replaceChildren(...pairs.map(own => element('tr', {},
    element('td', {}, own.readers.join(', ')), element('td', { class: 'number' }, String(own.scans)),
    ...[own.kappa, own.icc, own.dice, own.lesion_kappa].map(found => element('td', {}, estimate(found))))))
}

start().catch(error => say(error.message))
