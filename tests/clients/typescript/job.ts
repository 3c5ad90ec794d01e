// The main job, done with openapi-fetch and the types that openapi-typescript has made: node job.js URL FILE.

import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };

type Schemas = components["schemas"];

const [, , url = "", path = ""] = process.argv;
const PASSWORD = "correct horse battery staple";
const email = `${crypto.randomUUID()}@example.com`;
const api = createClient<paths>({ baseUrl: url });

function check(holds: unknown, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

/** The data of an answer, which must not be a problem. */
function data<T>(answer: { data?: T; error?: unknown }): NonNullable<T> {
  check(answer.data != null, answer.error);
  return answer.data;
}

async function logIn(): Promise<void> {
  data(await api.POST("/auth/register", { body: { email, password: PASSWORD } }));
  const { error } = await api.POST("/auth/register", { body: { email, password: PASSWORD } });
  check(error?.code === "email-taken", error);
  const pair = data(await api.POST("/auth/login", { body: { email, password: PASSWORD } }));
  api.use({
    onRequest: ({ request }) => {
      request.headers.set("Authorization", `Bearer ${pair.access_token}`);
      return request;
    },
  });
  const account = data(await api.GET("/auth/me"));
  check(account.email === email && account.usage.documents === 0, account);
}

async function upload(content: Blob): Promise<Schemas["Document"]> {
  const metadata: Schemas["Metadata"] = { folder: "Verträge/2026", tags: ["grün"] };
  const form = new FormData();
  form.set("file", content, "Übersicht.pdf");
  form.set("metadata", JSON.stringify(metadata));
  const answer = await api.POST("/documents", {
    params: { header: { "Idempotency-Key": crypto.randomUUID() } },
    body: { file: "", metadata },
    bodySerializer: () => form,
  });
  const document = data(answer);
  check(document.filename === "Übersicht.pdf" && document.folder === metadata.folder, document);
  check(answer.response.headers.get("Location") === `/documents/${document.id}`, "no Location");
  return document;
}

async function work(document_id: string): Promise<void> {
  const requests: (Schemas["ProcessRequest"] | undefined)[] = [
    { processor: "text", params: { max_pages: 3 } },
    { params: { seconds: 0 } },
    undefined, // the body may be left out
  ];
  for (const body of requests) {
    const answer = await api.POST("/documents/{document_id}/process", {
      params: { path: { document_id } },
      ...(body && { body }),
    });
    const query = { wait: 30 };
    const job = data(await api.GET("/jobs/{job_id}", { params: { path: { job_id: data(answer).job.id }, query } }));
    check(job.state === "SUCCEEDED", job);
    const result = data(await api.GET("/documents/{document_id}/result", { params: { path: { document_id } } }));
    check(body?.processor !== "text" || ("text" in result.data && result.data.text === "Hello 1"), result);
  }
  const timeline = data(await api.GET("/documents/{document_id}/timeline", { params: { path: { document_id } } }));
  check(timeline.items[0]?.event === "document.uploaded", timeline);
}

async function read(document_id: string, content: Blob): Promise<void> {
  const whole = await api.GET("/documents/{document_id}/content", {
    params: { path: { document_id } },
    parseAs: "arrayBuffer",
  });
  check(same(data(whole), await content.arrayBuffer()), "other bytes");
  const part = await api.GET("/documents/{document_id}/content", {
    params: { path: { document_id }, header: { Range: "bytes=5-9" } },
    parseAs: "arrayBuffer",
  });
  check(part.response.status === 206 && same(data(part), await content.slice(5, 10).arrayBuffer()), "other bytes");
  const query = {
    status: "COMPLETED",
    content_type: "application/pdf",
    tag: "grün",
    q: "übersicht",
    sort: "-filename",
    limit: 1,
  } as const;
  const found = data(await api.GET("/documents", { params: { query } }));
  check(found.items.length === 1 && found.items[0]?.id === document_id, found);
}

function same(one: ArrayBuffer, other: ArrayBuffer): boolean {
  const [left, right] = [new Uint8Array(one), new Uint8Array(other)];
  return left.length === right.length && left.every((byte, index) => byte === right[index]);
}

async function edit(document_id: string): Promise<void> {
  const seen = await api.GET("/documents/{document_id}", { params: { path: { document_id } } });
  const params = { path: { document_id }, header: { "If-Match": seen.response.headers.get("ETag") ?? "" } };
  const body: Schemas["MetadataChanges"] = { description: "Fünf Seiten" };
  const changed = data(await api.PATCH("/documents/{document_id}", { params, body }));
  check(changed.description === "Fünf Seiten" && changed.folder === "Verträge/2026", changed);
  const { error } = await api.PATCH("/documents/{document_id}", { params, body });
  check(error?.code === "precondition-failed", error);
}

async function sendDirectly(content: Blob): Promise<string> {
  const announced = { filename: "direct.pdf", content_type: "application/pdf", size: content.size } as const;
  const { upload_url, method, headers, document_id } = data(
    await api.POST("/documents/initiate-upload", { body: announced }),
  );
  const put = await fetch(upload_url, { method, headers, body: content });
  check(put.status === 200, await put.text());
  const path = { document_id };
  const document = data(await api.POST("/documents/{document_id}/complete-upload", { params: { path } }));
  check(document.status === "UPLOADED", document);
  return document_id;
}

// @ts-expect-error: the types of Node.js are not needed for anything else
const { readFile } = await import("node:fs/promises");
const content = new Blob([await readFile(path)]);
await logIn();
const { id } = await upload(content);
await work(id);
await read(id, content);
await edit(id);
for (const document_id of [id, await sendDirectly(content)]) {
  const { response } = await api.DELETE("/documents/{document_id}", { params: { path: { document_id } } });
  check(response.status === 204, response.status);
}
const gone = await api.GET("/documents/{document_id}", { params: { path: { document_id: id } } });
check(gone.error?.status === 404, gone.error);
