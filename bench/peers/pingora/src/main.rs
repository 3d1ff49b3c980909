//! The smallest Pingora proxy that is fair to Pingora: one fixed origin, a
//! keep-alive pool as large as any scenario needs, no hooks but the one that
//! names the origin; TLS, HTTP/2 on either side and an access log by option.
//!
//! Usage: pingora-peer LISTEN ORIGIN THREADS [log=FILE] [cert=FILE key=FILE] [h2] [h2-origin]

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use pingora_core::apps::HttpServerOptions;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::protocols::tls::ALPN;
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::Server;
use pingora_core::tls::ssl::SslVersion;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, Result};
use pingora_proxy::{http_proxy_service, ProxyHttp, Session};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

type Log = Arc<Mutex<BufWriter<File>>>;

struct Proxy {
    origin: HttpPeer,
    log: Option<Log>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = ();
    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.origin.clone()))
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, _: &mut ()) {
        let Some(log) = &self.log else { return };
        let request = session.req_header();
        let status = session
            .response_written()
            .map_or(0, |response| response.status.as_u16());
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |t| t.as_secs_f64());
        let client = session.client_addr();
        if let Ok(mut out) = log.lock() {
            // A failed write to a log must not end the proxy.
            let _ = write!(out, "{{\"time\":{time:.3},\"client\":\"");
            if let Some(client) = client {
                let _ = write!(out, "{client}");
            }
            let _ = writeln!(
                out,
                "\",\"method\":\"{}\",\"uri\":{:?},\"status\":{status},\"bytes\":{},\"error\":{}}}",
                request.method,
                request.uri.path(),
                session.body_bytes_sent(),
                error.is_some(),
            );
        }
    }
}

fn open_log(path: &str) -> Log {
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the access log can be opened");
    let log = Arc::new(Mutex::new(BufWriter::with_capacity(64 << 10, file)));
    let flushed = log.clone();
    std::thread::spawn(move || loop {
        std::thread::sleep(Duration::from_secs(1));
        if let Ok(mut out) = flushed.lock() {
            let _ = out.flush();
        }
    });
    log
}

/// What the command line says beyond the three positions.
#[derive(Default)]
struct Options {
    log: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    h2: bool,
    h2_origin: bool,
}

fn options(args: &[String]) -> Options {
    let mut out = Options::default();
    for arg in args {
        match arg.split_once('=') {
            Some(("log", file)) => out.log = Some(file.to_string()),
            Some(("cert", file)) => out.cert = Some(file.to_string()),
            Some(("key", file)) => out.key = Some(file.to_string()),
            None if arg == "h2" => out.h2 = true,
            None if arg == "h2-origin" => out.h2_origin = true,
            _ => panic!("unknown option {arg}"),
        }
    }
    out
}

fn tls(cert: &str, key: &str, h2: bool) -> TlsSettings {
    let mut tls = TlsSettings::intermediate(cert, key).expect("the certificate can be read");
    // As all others in the rounds with TLS.
    tls.set_min_proto_version(Some(SslVersion::TLS1_3))
        .expect("TLS 1.3 is known");
    // What browsers prefer first; the client says which of them it is.
    tls.set_curves_list("X25519MLKEM768:X25519:P-256")
        .expect("the groups are known");
    tls.set_alpn(if h2 { ALPN::H2H1 } else { ALPN::H1 });
    tls
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if args.len() < 4 {
        eprintln!("usage: pingora-peer LISTEN ORIGIN THREADS [OPTION...]");
        std::process::exit(2);
    }
    let opts = options(&args[4..]);
    let conf = ServerConf {
        threads: args[3].parse().expect("a number of threads"),
        // More than any scenario has at once; the default is 128.
        upstream_keepalive_pool_size: 1024,
        // End at once: the bench waits for the process.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();

    let mut origin = HttpPeer::new(args[2].as_str(), false, String::new());
    origin.options.connection_timeout = Some(Duration::from_secs(5));
    origin.options.read_timeout = Some(Duration::from_secs(60));
    origin.options.write_timeout = Some(Duration::from_secs(60));
    origin.options.idle_timeout = Some(Duration::from_secs(60));
    if opts.h2_origin {
        origin.options.set_http_version(2, 2);
        // What origins allow by default; Pingora's own default is one stream.
        origin.options.max_h2_streams = 100;
    }

    let log = opts.log.as_deref().map(open_log);
    let mut service = http_proxy_service(&server.configuration, Proxy { origin, log });
    let app = service.app_logic_mut().expect("the service has an application");
    // The default window of 64 KiB is all that an upload gets in a round trip.
    let mut h2 = default_h2_options();
    h2.initial_window_size(4 << 20);
    h2.initial_connection_window_size(8 << 20);
    app.h2_options = Some(h2);
    match (&opts.cert, &opts.key) {
        (Some(cert), Some(key)) => {
            service.add_tls_with_settings(&args[1], None, tls(cert, key, opts.h2));
        }
        _ => {
            let mut http = HttpServerOptions::default();
            http.h2c = opts.h2;
            app.server_options = Some(http);
            service.add_tcp(&args[1]);
        }
    }
    server.add_service(service);
    server.run_forever();
}
