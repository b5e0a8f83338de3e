//! Which process has a port of this host: for the message to whoever wanted it.
//!
//! The kernel lists sockets with their inodes (`/proc/net/tcp`, …), and processes with what they have open. What this user may
//! not see stays unknown.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use rbuild_executor::network::firewall::Protocol;

/// The process that has the port, in words; `None` when nobody is found.
pub(crate) fn process_with(address: SocketAddr, protocol: Protocol) -> Option<String> {
    // A socket of both families keeps the ports of both.
    let tables = ["", "6"].map(|family| format!("/proc/thread-self/net/{}{family}", protocol.name()));
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| inodes(&table, address.port(), protocol))
        .collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if sockets.is_empty() {
        return None;
    }
    let mut pids: Vec<u32> =
        fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| has_open(*pid, &sockets))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(format!("process {} ({pid})", name.trim()))
}

fn has_open(pid: u32, sockets: &[String]) -> bool {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    let leads_to = |path: &Path| fs::read_link(path).ok().and_then(|to| to.into_os_string().into_string().ok());
    entries.filter_map(Result::ok).filter_map(|entry| leads_to(&entry.path())).any(|open| sockets.contains(&open))
}

/// Inodes of the sockets that have a local port: of TCP those that listen.
fn inodes(table: &str, port: u16, protocol: Protocol) -> Vec<u64> {
    let wanted = format!(":{port:04X}");
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let has_port = fields.get(1)?.ends_with(&wanted);
        let listens = protocol == Protocol::Udp || *fields.get(3)? == "0A";
        fields.get(9).filter(|_| has_port && listens)?.parse().ok()
    };
    table.lines().skip(1).filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn a_socket_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0\n\
            1: 0100007F:1F90 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0\n";
        assert_eq!(inodes(table, 8080, Protocol::Tcp), [4242]);
        assert_eq!(inodes(table, 8080, Protocol::Udp), [4242, 4243]);
        assert!(inodes(table, 8081, Protocol::Tcp).is_empty());
    }

    #[test]
    fn the_process_is_named() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let own = format!("({})", std::process::id());
        for (address, protocol) in
            [(tcp.local_addr().unwrap(), Protocol::Tcp), (udp.local_addr().unwrap(), Protocol::Udp)]
        {
            let found = process_with(address, protocol).unwrap();
            assert!(found.starts_with("process ") && found.ends_with(&own), "{found}");
        }
    }
}
