// What both pages use: requests to the server, and elements whose texts are never HTML.

const csrf = document.querySelector('meta[name=csrf]').content

export class Refusal extends Error {
  constructor (status, message) {
    super(message)
    this.status = status
  }
}

async function answered (promise) {
  let response
  try {
    response = await promise
  } catch {
    throw new Refusal(0, 'The server does not answer. Is cac review still running? What you did last was not saved.')
  }
  if (!response.ok) {
    const content = await response.json().catch(() => ({}))
    throw new Refusal(response.status, content.error || `The server answered ${response.status}.`)
  }
  return response
}

export async function ask (path) {
  return (await answered(fetch(path))).json()
}

export async function bytes (path) {
  return (await answered(fetch(path))).arrayBuffer()
}

export async function send (path, content, keepalive = false) {
  const headers = { 'Content-Type': 'application/json', 'X-CSRF-Token': csrf }
  const body = JSON.stringify(content)
  return (await answered(fetch(path, { method: 'POST', headers, body, keepalive }))).json()
}

export function byId (id) {
  return document.getElementById(id)
}

export function element (name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) made.setAttribute(key, value === true ? '' : value)
  }
  made.append(...children.filter(child => child !== null))
  return made
}

export function number (value, digits = 1) {
  return value === null || value === undefined ? '–' : value.toFixed(digits)
}

export function interval (ends) {
  return ends ? `${ends[0].toFixed(0)}–${ends[1].toFixed(0)}` : '–'
}

export function time (seconds) {
  return seconds ? `${Math.floor(seconds / 60)}:${String(Math.round(seconds) % 60).padStart(2, '0')}` : '–'
}

// A message, until the next action, Escape or a click on it; good: it is no problem.
export function say (text, good = false) {
  const box = byId('message')
  box.textContent = text
  box.hidden = !text
  box.classList.toggle('good', good)
  box.onclick = () => { box.hidden = true }
}
