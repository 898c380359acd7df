// A QUIC client by quic-go with several connections on one UDP socket.
//
// usage: quic-go ADDRESS:PORT NAME...
//
// Follows the script of `quic::Client` and writes a line for each answer of a server: step, name that was asked for, tag
// of the server, address that the server saw. quic-go goes on with an ID that the server gave it as soon as it has one,
// so nothing has to be done for that step.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lucas-clemente/quic-go"
)

const (
	rounds   = 5
	patience = 60 * time.Second
)

// The request "who are you?" of the servers by quinn.
var who = append([]byte("?"), make([]byte, 16)...)

// socket is a UDP socket whose port can change under its user, as by a NAT.
type socket struct {
	mutex   sync.Mutex
	present *net.UDPConn
	first   net.Addr
}

func newSocket() *socket {
	s := &socket{}
	s.changePort()
	s.first = s.present.LocalAddr()
	return s
}

func (s *socket) changePort() {
	conn, err := net.ListenUDP("udp4", nil)
	must("socket", err)
	s.mutex.Lock()
	old := s.present
	s.present = conn
	s.mutex.Unlock()
	if old != nil {
		old.Close()
	}
}

func (s *socket) conn() *net.UDPConn {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	return s.present
}

func (s *socket) ReadFrom(buffer []byte) (int, net.Addr, error) {
	for {
		conn := s.conn()
		count, from, err := conn.ReadFrom(buffer)
		// One that was closed because another took its place is no end.
		if err == nil || conn == s.conn() {
			return count, from, err
		}
	}
}

func (s *socket) WriteTo(buffer []byte, to net.Addr) (int, error) { return s.conn().WriteTo(buffer, to) }
func (s *socket) Close() error                                    { return s.conn().Close() }
func (s *socket) LocalAddr() net.Addr                             { return s.first }
func (s *socket) SetDeadline(t time.Time) error                   { return s.conn().SetDeadline(t) }
func (s *socket) SetReadDeadline(t time.Time) error               { return s.conn().SetReadDeadline(t) }
func (s *socket) SetWriteDeadline(t time.Time) error              { return s.conn().SetWriteDeadline(t) }

type connection struct {
	name string
	quic quic.Connection
}

// ask asks all servers in turns who they are.
func ask(step string, connections []connection) {
	for round := 0; round < rounds; round++ {
		for _, c := range connections {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			stream, err := c.quic.OpenStreamSync(ctx)
			must(step+" "+c.name, err)
			stream.SetDeadline(time.Now().Add(patience))
			_, err = stream.Write(who)
			must(step+" "+c.name, err)
			stream.Close()
			answer, err := io.ReadAll(stream)
			must(step+" "+c.name, err)
			lines := strings.Split(string(answer), "\n")
			fmt.Println(step, c.name, lines[0], lines[1])
			cancel()
		}
	}
}

func must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

func main() {
	to, err := net.ResolveUDPAddr("udp4", os.Args[1])
	must("address", err)
	socket := newSocket()
	config := &quic.Config{HandshakeIdleTimeout: patience, MaxIdleTimeout: patience}
	var connections []connection
	for _, name := range os.Args[2:] {
		tls := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h3"}}
		conn, err := quic.Dial(socket, to, name, tls, config)
		must("connect to "+name, err)
		connections = append(connections, connection{name, conn})
	}
	ask("connected", connections)
	ask("new-ids", connections)
	socket.changePort()
	ask("moved", connections)
	for len(connections) > 1 {
		connections[0].quic.CloseWithError(0, "")
		connections = connections[1:]
		socket.changePort()
		ask("fewer", connections)
	}
	connections[0].quic.CloseWithError(0, "")
}
