//! The outcomes of packets of spliced connections, numbered for the programs and named for the metrics.

counters! {
    /// The outcome of a packet: index into `TCP_COUNTERS`. Packets of other connections have none.
    TcpCounter:
    /// Translated and sent on.
    Forwarded = 0, "forwarded";
    /// Left to the daemon: the connection is not handed over yet.
    ToDaemon = 1, "to_daemon";
    /// Left to the network stack: a SYN where a connection has ended.
    NewConnection = 2, "new_connection";
    /// Left to the network stack: the entry was being replaced.
    EntryChanged = 3, "entry_changed";
    /// Left to the network stack: the entry is for another family.
    Family = 4, "family";
    /// Left to the rules of the host: came by another interface than the one that leads to its sender.
    OtherInterface = 5, "other_interface";
    /// Left to the network stack: a frame to another station.
    OtherStation = 6, "other_station";
    /// Left to the network stack: TTL or hop limit used up; the kernel answers.
    Ttl = 7, "ttl";
    /// Left to the network stack: carries a VLAN tag.
    VlanTagged = 8, "vlan_tagged";
    /// Left to the network stack: the kernel refused a step before anything was changed.
    Refused = 9, "refused";
    /// Dropped: the kernel refused a step when the packet was partly rewritten.
    Broken = 10, "broken";
    /// Dropped: this machine's own acknowledgement or reset on a connection that it has handed over, or is about to.
    Silenced = 11, "silenced";
    /// Dropped: a SYN of this machine's on addresses that a spliced connection uses.
    PortInUse = 12, "port_in_use";
    /// Dropped: a probe of this machine's, of which the timestamps were noted.
    Probed = 13, "probed";
    /// Sent with a lower acknowledgement number, so that no more is promised during a hand-over.
    Clamped = 14, "clamped";
    /// Left to the network stack: the daemon that has attached the program is gone, and could not take it along.
    Lapsed = 15, "lapsed";
    /// Sent while the daemon connects, with the options of the client's leg, or twice.
    Shaped = 16, "shaped";
    /// Translated and sent on: what a router says about a packet of such a connection that is too big.
    TooBig = 17, "too_big";
}
