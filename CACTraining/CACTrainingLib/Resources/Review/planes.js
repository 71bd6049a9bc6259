// Three planes and 3-D, drawn by niivue, which is loaded when they are first asked for.

let library

function loaded () {
  library ||= new Promise((resolve, reject) => {
    const script = document.createElement('script')
    script.src = '/static/niivue.umd.js'
    script.onload = () => resolve(window.niivue)
    script.onerror = () => reject(new Error('niivue could not be loaded.'))
    document.head.append(script)
  })
  return library
}

export class Planes {
  // moved: is told the slice k that the reader has chosen here.
  constructor (canvas, base, state, moved) {
    Object.assign(this, { canvas, base, state, moved })
  }

  // sites: labels with their colours and names.
  async open (window, sites) {
    const { Niivue, SLICE_TYPE } = await loaded()
    // The patient's right on the left, as in the slices beside it.
    this.view = new Niivue({ isRadiologicalConvention: true, dragAndDropEnabled: false, isResizeCanvas: true, trustCalMinMax: true, loadingText: '', multiplanarForceRender: true, crosshairWidth: 0.5, backColor: [0, 0, 0, 1] })
    await this.view.attachToCanvas(this.canvas)
    this.view.setSliceType(SLICE_TYPE.MULTIPLANAR)
    await this.view.loadVolumes([{ url: `${this.base}/volume/ct`, name: 'ct.nii', cal_min: window[0], cal_max: window[1] }])
    this.view.onLocationChange = place => this.chosen(place)
    this.colours = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [''] }
    for (const known of sites) {
      known.colour.forEach((value, n) => this.colours['RGB'[n]].push(value))
      this.colours.A.push(255)
      this.colours.I.push(known.label)
      this.colours.labels.push(known.name)
    }
    this.ready = true
  }

  async showLesions (method, version) {
    const { view } = this
    if (this.shown === `${method} ${version}`) return
    this.shown = `${method} ${version}`
    if (view.volumes.length > 1) view.removeVolume(view.volumes[1])
    await view.addVolumeFromUrl({ url: `${this.base}/lesions/${method}`, name: 'lesions.nii', opacity: 0.7, interpolation: false })
    view.volumes[1].setColormapLabel(this.colours)
    view.updateGLVolume()
  }

  window (low, high) {
    Object.assign(this.view.volumes[0], { cal_min: low, cal_max: high })
    this.view.updateGLVolume()
  }

  // place: voxel (i, j, k) of the whole scan.
  goTo (place) {
    const mm = this.state.to_ras.map(row => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3])
    this.view.scene.crosshairPos = this.view.mm2frac(mm.slice(0, 3))
    this.view.drawScene()
  }

  chosen (place) {
    const [x, y, z] = place.mm
    const row = this.state.from_ras[2]
    this.moved(Math.round(row[0] * x + row[1] * y + row[2] * z + row[3]))
  }
}
