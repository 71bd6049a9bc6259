// A slice on a canvas: the image in a window, outlines of lesions with numbers, cursor, brush and line.

import { outlines } from '/static/outlines.js'

const SHADES = 65536

const areas = new WeakMap() // outlines of slices of labels, by the slice

export function shades (low, high) {
  const table = new Uint8ClampedArray(SHADES)
  for (let n = 0; n < SHADES; n++) table[n] = (n - 32768 - low) / (high - low) * 255
  return table
}

// Letters of the patient's sides at the left, right, upper and lower edge of a slice. toRas: rows of the matrix.
export function directions (toRas) {
  if (!toRas) return null
  const letter = (axis, sign) => {
    const parts = toRas.slice(0, 3).map(row => row[axis] * sign)
    const n = parts.map(Math.abs).indexOf(Math.max(...parts.map(Math.abs)))
    return ['RL', 'AP', 'SI'][n][parts[n] > 0 ? 0 : 1]
  }
  return [letter(0, -1), letter(0, 1), letter(1, -1), letter(1, 1)]
}

export class SliceView {
  // look: what all views share (k, zoom, centre, window …); see scan.js.
  constructor (image, title, look) {
    this.image = image
    this.look = look
    this.canvas = document.createElement('canvas')
    this.canvas.tabIndex = 0
    this.canvas.setAttribute('role', 'application')
    this.canvas.setAttribute('aria-label', `Axial slices: ${title}`)
    const caption = document.createElement('figcaption')
    caption.textContent = title
    this.figure = document.createElement('figure')
    this.figure.append(this.canvas, caption)
    this.slice = document.createElement('canvas')
    this.drawn = null
  }

  // Pixels of the canvas for a pixel of the slice, and where the slice begins.
  frame () {
    const { size, spacing, zoom, centre } = this.look
    const { width, height } = this.canvas
    const fit = Math.min(width / (size[0] * spacing[0]), height / (size[1] * spacing[1])) * zoom
    const [sx, sy] = [fit * spacing[0], fit * spacing[1]]
    return { sx, sy, x: width / 2 - centre[0] * sx, y: height / 2 - centre[1] * sy }
  }

  // The place (i, j) in the slice, pixels with their corner at whole numbers, under an event.
  placeOf (event) {
    const box = this.canvas.getBoundingClientRect()
    const ratio = this.canvas.width / box.width
    const { sx, sy, x, y } = this.frame()
    return [((event.clientX - box.left) * ratio - x) / sx, ((event.clientY - box.top) * ratio - y) / sy]
  }

  fit () {
    const box = this.figure.getBoundingClientRect()
    const ratio = Math.min(window.devicePixelRatio || 1, 2)
    const [width, height] = [Math.round(box.width * ratio), Math.round(box.height * ratio)]
    if (width && (this.canvas.width !== width || this.canvas.height !== height)) {
      this.canvas.width = width
      this.canvas.height = height
    }
  }

  draw (values, labels) {
    const { look, canvas } = this
    const { sx, sy, x, y } = this.frame()
    canvas.dataset.frame = [sx, sy, x, y].join() // for tests
    const context = canvas.getContext('2d', { alpha: false })
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.fillStyle = '#000'
    context.fillRect(0, 0, canvas.width, canvas.height)
    if (!values) return false
    this.paint(values)
    context.imageSmoothingEnabled = sx < 6
    context.drawImage(this.slice, x, y, look.size[0] * sx, look.size[1] * sy)
    context.setTransform(sx, 0, 0, sy, x, y)
    for (const { pixels, colours } of labels) this.areas(context, pixels, colours, sx)
    this.lesions(context, sx, sy, x, y)
    this.marks(context, sx)
    this.sides(context)
    return true
  }

  sides (context) {
    const { width, height } = this.canvas
    this.canvas.dataset.sides = this.look.directions || '' // for tests
    const size = 16 * Math.min(window.devicePixelRatio || 1, 2)
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.font = `bold ${size}px system-ui`
    context.textAlign = 'center'
    context.lineWidth = 3
    context.strokeStyle = '#000'
    context.fillStyle = '#fff'
    const places = [[size, height / 2], [width - size, height / 2], [width / 2, 1.2 * size], [width / 2, height - size / 2]]
    places.forEach((place, n) => {
      context.strokeText(this.look.directions?.[n] || '', ...place)
      context.fillText(this.look.directions?.[n] || '', ...place)
    })
    context.textAlign = 'left'
  }

  paint (values) {
    const [width, height] = this.look.size
    if (this.drawn === values && this.table === this.look.table) return
    if (this.slice.width !== width || this.slice.height !== height) {
      this.slice.width = width
      this.slice.height = height
      this.data = this.slice.getContext('2d').createImageData(width, height)
      this.pixels = new Uint32Array(this.data.data.buffer)
    }
    const table = this.look.table
    for (let n = 0; n < values.length; n++) {
      const shade = table[values[n] + 32768]
      this.pixels[n] = 0xff000000 | shade << 16 | shade << 8 | shade
    }
    this.slice.getContext('2d').putImageData(this.data, 0, 0)
    this.drawn = values
    this.table = table
  }

  areas (context, pixels, colours, sx) {
    if (!areas.has(pixels)) {
      const map = new Map()
      pixels.forEach((label, at) => { if (label && colours[label]) map.set(at, label) })
      areas.set(pixels, outlines(map, this.look.size[0]))
    }
    for (const [label, { path }] of areas.get(pixels)) {
      context.lineWidth = 1.5 / sx
      context.setLineDash([])
      context.strokeStyle = colours[label]
      context.stroke(path)
    }
  }

  lesions (context, sx, sy, x, y) {
    const { look } = this
    const found = look.outlines()
    for (const [id, { path, place }] of found) {
      const lesion = look.lesions.get(id)
      if (!lesion) continue
      context.setTransform(sx, 0, 0, sy, x, y)
      context.setLineDash(lesion.left_out === null && lesion.site !== look.rejected ? [] : [4 / sx, 4 / sx])
      for (const [colour, width] of [['#000', 4], [look.colours.get(lesion.site), look.chosen.has(id) ? 3 : 1.8]]) {
        context.lineWidth = width / sx
        context.strokeStyle = colour
        context.stroke(path)
      }
      context.setTransform(1, 0, 0, 1, 0, 0)
      context.font = `${look.chosen.has(id) ? 'bold ' : ''}${Math.round(13 * (window.devicePixelRatio || 1))}px system-ui`
      context.lineWidth = 3
      context.setLineDash([])
      context.strokeStyle = '#000'
      context.fillStyle = look.colours.get(lesion.site)
      const at = [place[0] * sx + x + 3, place[1] * sy + y - 3]
      context.strokeText(String(id), ...at)
      context.fillText(String(id), ...at)
    }
    context.setTransform(sx, 0, 0, sy, x, y)
  }

  marks (context, sx) {
    const { look } = this
    context.setLineDash([])
    context.strokeStyle = '#ffeb3b'
    context.lineWidth = 1.5 / sx
    if (look.cursor) {
      const [i, j] = look.cursor
      context.beginPath()
      if (look.tool === 'brush' || look.tool === 'erase') {
        context.ellipse(i, j, look.radius / look.spacing[0], look.radius / look.spacing[1], 0, 0, 2 * Math.PI)
      } else {
        const arm = 8 / sx
        context.moveTo(i - arm, j)
        context.lineTo(i + arm, j)
        context.moveTo(i, j - arm)
        context.lineTo(i, j + arm)
      }
      context.stroke()
    }
    if (look.stroke.length > 1) {
      context.lineWidth = 2 * look.radius / look.spacing[0]
      context.lineCap = context.lineJoin = 'round'
      context.strokeStyle = look.tool === 'erase' ? 'rgba(255,255,255,.35)' : 'rgba(255,235,59,.35)'
      context.beginPath()
      look.stroke.forEach(([i, j], n) => n ? context.lineTo(i, j) : context.moveTo(i, j))
      context.stroke()
    }
    if (look.line && look.line.length > 1) {
      const [[i0, j0], [i1, j1]] = look.line
      context.strokeStyle = '#ffeb3b'
      context.lineWidth = 2 / sx
      context.beginPath()
      context.moveTo(i0, j0)
      context.lineTo(i1, j1)
      // A short stroke towards the side that will be cut off.
      const [mi, mj, length] = [(i0 + i1) / 2, (j0 + j1) / 2, Math.hypot(i1 - i0, j1 - j0) || 1]
      context.moveTo(mi, mj)
      context.lineTo(mi - (j1 - j0) / length * 24 / sx, mj + (i1 - i0) / length * 24 / sx)
      context.stroke()
    }
  }
}
