"use strict";
// The page behind a link from a mail. The token stands in the fragment, which no browser sends to a server and no mail
// scanner can press a button with. It leaves this page once: in the body of the request that the button makes.

const part = (id) => document.getElementById(id);
const show = (id) => { part(id).hidden = false; };
const hide = (id) => { part(id).hidden = true; };
const say = (text) => { part("said").textContent = text; };
const token = new URLSearchParams(location.hash.slice(1)).get("token");

async function post(path, body) {
  const request = { method: "POST", cache: "no-store", redirect: "error" };
  if (body !== undefined) {
    request.headers = { "content-type": "application/json" };
    request.body = JSON.stringify(body);
  }
  const response = await fetch(path, request);
  if (response.ok) {
    return response.status === 204 ? null : response.json();
  }
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail || `the server answered with ${response.status}`;
  throw Object.assign(new Error(detail), { answered: response.status < 500 });
}

// Runs what a button does, once at a time, and says what went wrong.
async function press(button, work) {
  button.disabled = true;
  say("");
  try {
    await work();
  } catch (error) {
    say(`That did not work: ${error.message}.`);
  } finally {
    button.disabled = false;
  }
}

part("confirm").addEventListener("click", () => press(part("confirm"), async () => {
  try {
    const session = await post("api/auth/verify-magic-link", { token });
    say(`You are signed in as ${session.user.email}.`);
    show("out");
  } catch (error) {
    if (!error.answered) {
      throw error;
    }
    say(`That did not work: ${error.message}.`);
    show("ask");
  }
  // Used, or not good: the link is worth nothing any more.
  history.replaceState(null, "", location.pathname);
  hide("link");
}));

part("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  press(part("send"), async () => {
    await post("api/auth/request-magic-link", { email: part("email").value });
    say("If this address may sign in, a link is on its way to it. It is good for 15 minutes.");
  });
});

part("leave").addEventListener("click", () => press(part("leave"), async () => {
  await post("api/auth/logout");
  hide("out");
  show("ask");
  say("You are signed out.");
}));

show(token ? "link" : "ask");
