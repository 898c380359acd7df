//! Batches between real sockets on loopback.

use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};

use super::*;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// A listener on the wildcard address, and how a client reaches it.
fn listening(ip: IpAddr) -> (UdpSocket, SocketAddr) {
    let any = if ip.is_ipv4() { IpAddr::from(Ipv4Addr::UNSPECIFIED) } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = listener(SocketAddr::new(any, 0), false, LISTENER_BUFFER).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, SocketAddr::new(ip, port))
}

/// Waits until something can be received, then receives.
fn receive(receiver: &mut Receiver, socket: &UdpSocket) -> usize {
    loop {
        match receiver.receive(socket, 0, usize::MAX) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut fds = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
                rustix::event::poll(&mut fds, None).unwrap();
            }
            result => return result.unwrap(),
        }
    }
}

#[test]
fn peer_local_address_and_type_of_service_come_along_and_go_back() {
    for ip in [V4, V6] {
        let (server, address) = listening(ip);
        let client = connected(address).unwrap();
        let mut sender = Sender::new();
        let sent = sender.send(&client, ip.is_ipv6(), &[Message::new(None, None, 0xba, b"hello", 5)]);
        assert_eq!((sent.datagrams, sent.refused), (1, 0), "{sent:?}");

        let mut receiver = Receiver::new(4, false);
        assert_eq!(receive(&mut receiver, &server), 1);
        let got = receiver.get(0).unwrap();
        assert_eq!((got.from, got.tos, got.bytes), (client.local_addr().ok(), 0xba, &b"hello"[..]));
        assert_eq!(got.local, Some(Local { address: ip, interface: 0 }));

        let reply = Message::new(got.from, got.local, 0x29, b"back", 4);
        assert_eq!(sender.send(&server, ip.is_ipv6(), &[reply]).datagrams, 1);
        let mut replies = Receiver::new(1, true);
        assert_eq!(receive(&mut replies, &client), 1);
        let got = replies.get(0).unwrap();
        assert_eq!((got.from, got.tos, got.bytes), (None, 0x29, &b"back"[..]));
    }
}

#[test]
fn datagrams_keep_their_boundaries_whether_they_share_a_buffer_or_not() {
    let lengths: [(&str, &[usize]); 5] = [
        ("equal", &[1200; 16]),
        ("a shorter end", &[1200, 1200, 300]),
        ("mixed", &[10, 1200, 1200, 7, 1200, 0, 0, 3]),
        ("more than a buffer takes", &[1200; 70]),
        ("longer than the first", &[100, 200, 300]),
    ];
    for (row, lengths) in lengths {
        let (server, address) = listening(V4);
        let client = connected(address).unwrap();
        let datagrams: Vec<Vec<u8>> = (0..).zip(lengths).map(|(i, len)| vec![i; *len]).collect();
        let mut runs = Runs::new();
        for datagram in &datagrams {
            runs.push(Message::new(None, None, 0, datagram, datagram.len()));
        }
        assert!(runs.messages().iter().all(|message| message.count <= send::MAX_SEGMENTS));
        if row == "equal" {
            assert_eq!(runs.messages().len(), 1, "one buffer for all");
        }
        let sent = Sender::new().send(&client, false, runs.messages());
        assert_eq!((sent.datagrams, sent.refused), (datagrams.len(), 0), "{row}: {sent:?}");

        let mut receiver = Receiver::new(128, false);
        let mut got: Vec<Vec<u8>> = Vec::new();
        while got.len() < datagrams.len() {
            for index in 0..receive(&mut receiver, &server) {
                let buffer = receiver.get(index).unwrap();
                if buffer.bytes.is_empty() {
                    got.push(Vec::new());
                }
                got.extend(buffer.bytes.chunks(buffer.segment).map(<[u8]>::to_vec));
            }
        }
        assert_eq!(got, datagrams, "{row}");
    }
}

#[test]
fn only_datagrams_of_one_type_of_service_share_a_buffer() {
    for (row, classes, expected) in
        [("alike", [0xb8, 0xb8, 0xb8], 1), ("ECN differs", [0xb8, 0xba, 0xb8], 3), ("DSCP differs", [0, 0x28, 0x28], 2)]
    {
        let mut runs = Runs::new();
        for class in classes {
            runs.push(Message::new(None, None, class, b"same", 4));
        }
        assert_eq!(runs.messages().len(), expected, "{row}");
    }
}

#[test]
fn what_a_socket_has_no_room_for_is_told() {
    let (server, address) = listening(V4);
    set_receive_buffer(&server, 4096);
    let client = connected(address).unwrap();
    for _ in 0..100 {
        client.send(&[0; 1000]).unwrap();
    }
    let mut receiver = Receiver::new(128, false);
    let kept = receive(&mut receiver, &server);
    assert!(kept < 100, "{kept}");
    // The count comes with what arrives after the loss.
    client.send(b"after").unwrap();
    assert_eq!(receive(&mut receiver, &server), 1);
    assert_eq!(receiver.get(0).unwrap().lost, u32::try_from(100 - kept).ok());
    assert!(receive_buffer_given(4096).is_some_and(|given| given >= 4096));
}

#[test]
fn one_refused_message_does_not_hold_up_the_others() {
    let (server, address) = listening(V4);
    let socket = listener(SocketAddr::new(V4, 0), false, LISTENER_BUFFER).unwrap();
    let too_long = vec![0; 65_508];
    let to = |bytes| Message::new(Some(address), None, 0, bytes, usize::MAX);
    let sent = Sender::new().send(&socket, false, &[to(b"a"), to(&too_long), to(b"b")]);
    assert_eq!((sent.datagrams, sent.refused), (2, 1), "{sent:?}");
    let mut receiver = Receiver::new(4, false);
    let mut got = Vec::new();
    while got.len() < 2 {
        let filled = receive(&mut receiver, &server);
        got.extend((0..filled).map(|index| receiver.get(index).unwrap().bytes.to_vec()));
    }
    assert_eq!(got, [b"a", b"b"]);
}

#[test]
fn more_messages_than_one_call_takes_all_leave() {
    let (server, address) = listening(V4);
    let socket = listener(SocketAddr::new(V4, 0), false, LISTENER_BUFFER).unwrap();
    let bytes: Vec<[u8; 1]> = (0..150).map(|n| [n]).collect();
    let messages: Vec<_> = bytes.iter().map(|byte| Message::new(Some(address), None, 0, byte, 1)).collect();
    let sent = Sender::new().send(&socket, false, &messages);
    assert_eq!((sent.datagrams, sent.refused), (150, 0));
    let mut receiver = Receiver::new(8, false);
    let mut got = Vec::new();
    while got.len() < 150 {
        let filled = receive(&mut receiver, &server);
        got.extend((0..filled).map(|index| receiver.get(index).unwrap().bytes[0]));
    }
    assert_eq!(got, (0..150).collect::<Vec<u8>>());
}

#[test]
fn buffers_are_filled_from_the_one_asked_for() {
    let (server, address) = listening(V4);
    let client = connected(address).unwrap();
    let mut receiver = Receiver::new(4, false);
    client.send(b"first").unwrap();
    assert_eq!(receive(&mut receiver, &server), 1);
    client.send(b"second").unwrap();
    let mut fds = [rustix::event::PollFd::new(&server, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    assert_eq!(receiver.receive(&server, 3, 9).unwrap(), 1, "only one buffer is left");
    assert_eq!(receiver.get(0).unwrap().bytes, b"first");
    assert_eq!(receiver.get(3).unwrap().bytes, b"second");
    assert!(receiver.get(4).is_none());
    assert_eq!(receiver.receive(&server, 4, 1).unwrap(), 0);
}

#[test]
fn upstream_sockets_share_no_port_and_tell_of_closed_ones() {
    let (server, address) = listening(V4);
    let sockets: Vec<_> = (0..50).map(|_| connected(address).unwrap()).collect();
    let ports: std::collections::BTreeSet<_> = sockets.iter().map(|s| s.local_addr().unwrap().port()).collect();
    assert_eq!(ports.len(), sockets.len());
    drop(server);
    let client = connected(address).unwrap();
    client.send(b"x").unwrap();
    let mut fds = [rustix::event::PollFd::new(&client, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, None).unwrap();
    assert!(socket2::SockRef::from(&client).take_error().unwrap().is_some_and(|error| is_unreachable(&error)));
    assert!(socket2::SockRef::from(&client).take_error().unwrap().is_none(), "taken");
}

#[test]
fn a_port_in_use_is_not_free_although_it_could_be_shared() {
    let first = listener(SocketAddr::new(V4, 0), false, LISTENER_BUFFER).unwrap();
    let address = first.local_addr().unwrap();
    assert_eq!(port_is_free(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let second = listener(address, false, LISTENER_BUFFER).unwrap();
    drop((first, second));
    port_is_free(address, false).unwrap();
}
