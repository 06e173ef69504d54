//! What a proxy provider's server sends, and what it says of the quota. Input: the text; or, with an odd
//! first byte, its base64.
#![no_main]

use headgate::config::Config;
use headgate::encoding::BASE64;
use headgate::provider::proxy::Quota;
use headgate_fuzz::Input;
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = "
proxy-providers:
  p:
    type: file
    path: x
    filter: 'a`.'
    exclude-type: http
    override: {additional-prefix: p, proxy-name: [{pattern: '(a)', target: '$1$1'}]}
";

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let flags = input.byte();
    let text = String::from_utf8_lossy(input.rest());
    if let Some(quota) = Quota::parse(&text) {
        let written = format!(
            "upload={}; download={}; total={}; expire={}",
            quota.upload, quota.download, quota.total, quota.expire
        );
        assert_eq!(Quota::parse(&written), Some(quota));
    }
    let text = match flags & 1 {
        0 => text.into_owned(),
        _ => BASE64.encode(text.as_bytes()),
    };
    let Ok((config, _)) = Config::parse(CONFIG) else {
        return;
    };
    for provider in &config.proxy_providers {
        if let Ok(parsed) = provider.reader.read(&text) {
            assert!(!parsed.nodes.is_empty());
            assert!(parsed.nodes.iter().all(|node| node.dial.mark == 0));
        }
    }
});
