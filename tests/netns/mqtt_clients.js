// What test_mqtt_clients.py lets mqtt.js do: mqtt_clients.js MODULE URL VERSION; prints what it saw as JSON.
'use strict';

const [modulePath, url, version] = process.argv.slice(2);
const mqtt = require(modulePath);
const options = {protocolVersion: Number(version), username: 'ann', password: 'plain', reconnectPeriod: 0};

async function main() {
    const seen = [];
    // Without aliases: mqtt.js 5.16 shows messages of quality 2 that came by one without their topic.
    const listener = await mqtt.connectAsync(url, {...options, clientId: `js-listener-${version}`, clean: false,
        properties: version === '5' ? {sessionExpiryInterval: 60} : undefined});
    listener.on('message', (topic, payload, packet) => seen.push([topic, payload.toString(), packet.qos, packet.retain]));
    const granted = await listener.subscribeAsync({'js/#': {qos: 2}, '$share/g/js-shared': {qos: 1}});
    const speaker = await mqtt.connectAsync(url, {...options, clientId: `js-speaker-${version}`});
    for (const qos of [0, 1, 2])
        for (let number = 0; number < 20; number++)
            await speaker.publishAsync(`js/${qos}`, `${number}`, {qos});
    await speaker.publishAsync('js-shared', 'one of us', {qos: 1});
    await speaker.publishAsync('js/large', 'x'.repeat(300000), {qos: 1});
    const end = Date.now() + 10000;
    while (seen.length < 62 && Date.now() < end)
        await new Promise((resolve) => setTimeout(resolve, 10));
    // It goes without a word, and comes back to what waited.
    listener.stream.destroy();
    await new Promise((resolve) => setTimeout(resolve, 200));
    await speaker.publishAsync('js/away', 'waited', {qos: 2});
    const again = await mqtt.connectAsync(url, {...options, clientId: `js-listener-${version}`, clean: false,
        properties: version === '5' ? {sessionExpiryInterval: 0} : undefined});
    const late = await new Promise((resolve) => {
        again.on('message', (_topic, payload) => resolve(payload.toString()));
        setTimeout(() => resolve(null), 3000);
    });
    await Promise.all([again.endAsync(), speaker.endAsync()]);
    const order = (qos) => seen.filter(([topic]) => topic === `js/${qos}`).map(([, payload]) => Number(payload));
    console.log(JSON.stringify({
        granted: granted.map((one) => one.qos), orders: [0, 1, 2].map(order), late,
        shared: seen.filter(([topic]) => topic === 'js-shared').length, large: seen.find(([topic]) => topic === 'js/large')?.[1].length,
    }));
    process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
