// Many files at once, each sent as the form would send it. Without a script, the form sends one.

const AT_ONCE = 3
const TRIES = 4
const LONGEST = 60 // seconds that a file waits by itself before it is tried again
const HASHED = 256 * 1024 * 1024 // bytes; of a larger file name, size and time stand for the content
const STEPS = 100 // of a progress bar

const form = document.querySelector("#upload")
const list = document.querySelector(".uploads")
const status = document.querySelector("#uploads-status")
const template = document.querySelector("#upload-row")
const drop = form.querySelector(".drop")
const [picker, folders] = form.querySelectorAll("[type=file]")
const uploads = []

class Upload {
  constructor(file, folder) {
    Object.assign(this, { file, folder, state: "chosen" })
    this.row = template.content.cloneNode(true).querySelector("li")
    this.row.querySelector(".name").textContent = this.path
    const progress = this.row.querySelector("progress")
    progress.setAttribute("aria-label", this.path)
    for (const name of ["cancel", "retry"]) {
      const button = this.row.querySelector(`.${name}`)
      button.setAttribute("aria-label", `${button.textContent} ${this.path}`)
      button.addEventListener("click", () => this[name]())
    }
    list.append(this.row)
    this.say("chosen", "Not sent yet")
  }

  get path() {
    return this.folder ? `${this.folder}/${this.file.name}` : this.file.name
  }

  say(state, words, share = null) {
    const moved = this.state !== state
    this.state = state
    this.row.className = state
    this.row.querySelector(".said").textContent = words
    this.row.querySelector("progress").hidden = state !== "sending"
    if (share !== null) this.row.querySelector("progress").value = Math.floor(share * STEPS) / STEPS
    const [cancel, retry] = ["cancel", "retry"].map((name) => this.row.querySelector(`.${name}`))
    const focused = document.activeElement
    cancel.hidden = !["chosen", "waiting", "sending"].includes(state)
    retry.hidden = !["failed", "cancelled"].includes(state)
    if (focused.hidden && this.row.contains(focused)) (retry.hidden ? form.querySelector("button.main") : retry).focus()
    if (moved || state === "chosen") summarise()
  }

  cancel() {
    this.say("cancelled", "Cancelled")
    this.request?.abort()
  }

  retry() {
    this.say("waiting", "Waiting")
    next()
  }

  async send() {
    const attempt = this.attempt = {}
    const goes = () => this.attempt === attempt && this.state === "sending"
    this.say("sending", "Reading", 0)
    try {
      const fields = stated(this.folder)
      const key = await keyed(this.file, fields)
      for (let tries = 1; goes(); tries += 1) {
        const answer = await this.post(fields, key)
        if (!goes()) return
        if (answer.done) return this.arrived(answer.url)
        if (!answer.again || answer.again > LONGEST || tries === TRIES) return this.say("failed", answer.reason)
        this.say("sending", `${answer.reason} Trying again`)
        await new Promise((resolve) => setTimeout(resolve, answer.again * 1000 * tries))
      }
    } catch {
      if (goes()) this.say("failed", "The file cannot be read.")
    }
  }

  post(fields, key) {
    const body = new FormData()
    for (const [name, value] of fields) body.append(name, value)
    body.append("file", this.file, this.file.name)
    const request = this.request = new XMLHttpRequest()
    return new Promise((resolve) => {
      request.upload.addEventListener("progress", ({ loaded, total }) => {
        if (this.state === "sending") this.say("sending", `${Math.floor(100 * loaded / total)} %`, loaded / total)
      })
      request.addEventListener("loadend", () => resolve(read(request)))
      request.open("POST", form.action)
      request.setRequestHeader("Idempotency-Key", key)
      request.send(body)
    })
  }

  arrived(url) {
    const link = Object.assign(document.createElement("a"), { href: url, textContent: this.path })
    this.row.querySelector(".name").replaceChildren(link)
    this.say("done", "Uploaded")
  }
}

// What an answer says. All are pages, and those about errors have a notice.
const read = (request) => {
  if (!request.status) return { reason: "The connection was lost.", again: 1 }
  const { pathname } = new URL(request.responseURL)
  if (request.status === 200 && pathname.startsWith(`${new URL(form.action).pathname}/`)) return { done: true, url: pathname }
  if (request.status === 200) return { reason: "Your session has ended: sign in, and retry." }
  const page = new DOMParser().parseFromString(request.responseText, "text/html")
  const notice = page.querySelector(".notice.bad")
  const reason = notice ? notice.innerText.trim().replace(/\s+/g, " ") : `Error ${request.status}.`
  return { reason, again: Number(request.getResponseHeader("Retry-After")) }
}

// The fields of the form, as the file is to have them.
const stated = (folder) => [...new FormData(form)]
  .filter(([name, value]) => typeof value === "string" && name !== "folder")
  .concat([["folder", [form.elements.folder.value.replace(/\/+$/, ""), folder].filter(Boolean).join("/")]])

// The same file with the same fields has the same key, so that it never makes a second document.
const keyed = async (file, fields) => {
  const content = file.size > HASHED ? `${file.size} ${file.lastModified}` : await inTurn(() => file.arrayBuffer().then(digest))
  return digest(new TextEncoder().encode(JSON.stringify([content, file.name, fields])))
}

const digest = async (bytes) => [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))]
  .map((byte) => byte.toString(16).padStart(2, "0")).join("")

// One file at a time, since it is in memory meanwhile.
let turn = Promise.resolve()
const inTurn = (work) => (turn = turn.catch(() => {}).then(work))

const count = (...states) => uploads.filter(({ state }) => states.includes(state)).length

const next = () => {
  for (const each of uploads) {
    if (count("sending") === AT_ONCE) return
    if (each.state === "waiting") each.send().finally(next)
  }
}

const summarise = () => {
  const parts = [["done", "uploaded"], ["failed", "refused or failed"], ["cancelled", "cancelled"], ["chosen", "not sent yet"]]
  const said = parts.map(([state, words]) => [count(state), words]).filter(([number]) => number)
  const busy = count("waiting", "sending")
  status.textContent = said.concat(busy ? [[busy, "on the way"]] : []).map((each) => each.join(" ")).join(", ")
  form.querySelector("button.main").textContent = count("chosen") > 1 ? `Upload ${count("chosen")} files` : "Upload"
  form.querySelector("[data-finished]").hidden = busy > 0 || !count("done")
}

const add = (files) => {
  for (const [file, folder] of files) uploads.push(new Upload(file, folder))
  summarise()
}

// The files of what was dropped, with their folders.
const files = async (entry, folder = "") => {
  if (entry instanceof File) return [[entry, folder]]
  if (entry.isFile) return [[await new Promise((resolve, reject) => entry.file(resolve, reject)), folder]]
  const reader = entry.createReader()
  const found = []
  const inside = folder ? `${folder}/${entry.name}` : entry.name
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)) // 100 at a time
    if (!some.length) return found
    for (const each of some) found.push(...await files(each, inside))
  }
}

const folderOf = (file) => file.webkitRelativePath.split("/").slice(0, -1).join("/")

picker.multiple = true
picker.required = false
for (const each of [picker, folders]) {
  each.addEventListener("change", () => {
    add([...each.files].map((file) => [file, folderOf(file)]))
    each.value = ""
  })
}

for (const [name, over] of [["dragenter", true], ["dragover", true], ["dragleave", false], ["drop", false]]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault()
    drop.classList.toggle("over", over)
  })
}
drop.addEventListener("drop", async (event) => {
  // Before anything is waited for: the items are gone afterwards.
  const items = [...event.dataTransfer.items].filter(({ kind }) => kind === "file")
  const entries = items.map((item) => item.webkitGetAsEntry() ?? item.getAsFile())
  for (const entry of entries) {
    try {
      add(await files(entry))
    } catch {
      status.textContent = `${entry.name} cannot be read.`
    }
  }
})

form.addEventListener("submit", (event) => {
  event.preventDefault()
  if (!count("chosen", "waiting", "sending")) status.textContent = "Choose files first."
  for (const each of uploads) if (each.state === "chosen") each.say("waiting", "Waiting")
  next()
})

window.addEventListener("beforeunload", (event) => {
  if (count("waiting", "sending")) event.preventDefault()
})
