// Calls are sent with a token of the session, which lives in this page only.

const page = document.querySelector("#reference")
const own = `${location.origin}${page.dataset.own}`
const fresh = 60_000 // milliseconds for which a token is used
let token = null
let until = 0

const authorized = async (request) => {
  if (!request.url.startsWith(own) || request.loadSpec) return request
  if (Date.now() > until) {
    const answer = await fetch(page.dataset.token, { method: "POST", redirect: "manual" })
    if (!answer.ok) return location.reload(), request // the session has ended: one signs in again
    token = (await answer.json()).access_token
    until = Date.now() + fresh
  }
  request.headers.Authorization = `Bearer ${token}`
  return request
}

SwaggerUIBundle({
  url: page.dataset.described,
  domNode: page,
  deepLinking: true,
  defaultModelsExpandDepth: -1,
  requestInterceptor: authorized,
  showMutatedRequest: false, // or the command that it shows would hold the token
})
