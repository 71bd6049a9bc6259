// Which lesions were shown to the reader: those whose number stayed in view for a moment.

const MILLISECONDS = 300

const shown = {} // ids by method, since the page was opened
let pending = {} // of these, what the server does not know yet
let timer
let place = ''

// Starts the moment anew where the slice or the part of it that is seen has changed.
export function look (view, method, k) {
  const frame = view.frame()
  const now = [method, k, ...Object.values(frame)].join()
  if (now === place) return
  place = now
  clearTimeout(timer)
  delete document.body.dataset.looked
  timer = setTimeout(() => note(view, method, frame), MILLISECONDS)
}

function note (view, method, { sx, sy, x, y }) {
  const { width, height } = view.canvas
  for (const [id, { place: [i, j] }] of view.look.outlines()) {
    const [across, down] = [i * sx + x, j * sy + y]
    if (document.visibilityState !== 'visible' || across < 0 || down < 0 || across > width || down > height) continue
    if (shownIn(method).has(id)) continue
    shownIn(method).add(id)
    pending[method] = [...pending[method] || [], id]
  }
  document.body.dataset.looked = shownIn(method).size // for tests
  document.dispatchEvent(new Event('looked'))
}

export function shownIn (method) {
  shown[method] ||= new Set()
  return shown[method]
}

export function takeLooks () {
  const taken = pending
  pending = {}
  return taken
}

// What was taken but did not arrive.
export function giveBackLooks (taken) {
  for (const [method, ids] of Object.entries(taken)) pending[method] = [...ids, ...pending[method] || []]
}
