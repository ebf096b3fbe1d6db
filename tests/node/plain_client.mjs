// The bank from a program that knows NATS only: node plain_client.mjs URL ACCOUNT. Prints what it saw as one JSON object.
import { connect } from "@nats-io/transport-node";

const [url, account] = process.argv.slice(2);
const { host, username: user, password: pass } = new URL(url);
const client = await connect({ servers: host, ...(user && { user: decodeURIComponent(user), pass: decodeURIComponent(pass) }) });
const [ask, tell] = [`cue.ask.account.${account}`, `cue.tell.account.${account}`];
const body = JSON.stringify({ cents: 500 });
const events = client.subscribe(`cue.event.account.${account}.>`, { max: 3 });

const first = (await client.request(`${ask}.deposit`, body, { timeout: 5000 })).json();
const once = [];
for (let i = 0; i < 2; i++) once.push((await client.request(`${ask}.deposit.salary-1`, body, { timeout: 5000 })).json());
const ack = (await client.request(`${tell}.deposit.gift-1`, JSON.stringify({ cents: 7 }), { timeout: 5000 })).json().seq;
const seen = [];
for await (const message of events) seen.push(message.json());
const info = (await client.request("$SRV.INFO.cuebook", "", { timeout: 5000 })).json();
const balance = (await client.request(`${ask}.balance`, "", { timeout: 5000 })).json();
console.log(JSON.stringify({ first, once, ack, events: seen, info, balance }));
await client.close();
