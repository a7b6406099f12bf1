// client - the milter client of emersion/go-milter drives mailwald's socket.
//
// client SOCKET ordered|old|rude SESSIONS MESSAGES FILE
//
// Each session sends so many messages with the content of FILE (header, empty line, body) and
// prints a line "QUEUEID ACTION" for each end of message that was answered. Every third
// message is begun, in part, and given up. "old" offers none of the options of protocol 6.
// "rude" does what no MTA does, in turn, and between that sends whole messages.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-milter"
)

type field struct{ key, value string }

type mail struct {
	fields []field
	body   []byte
}

func parse(path string) (m mail) {
	all, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	head, body, _ := strings.Cut(string(all), "\r\n\r\n")
	m.body = []byte(body)
	for _, line := range strings.Split(head, "\r\n") {
		if line[0] == ' ' || line[0] == '\t' { // folded: as MTAs hand it over
			m.fields[len(m.fields)-1].value += "\n" + line
			continue
		}
		k, v, _ := strings.Cut(line, ":")
		m.fields = append(m.fields, field{k, v})
	}
	return m
}

func must(act *milter.Action, err error) {
	if err != nil {
		panic(err)
	}
	if act.Code != milter.ActContinue {
		panic(fmt.Sprintf("answered %q in the middle", act.Code))
	}
}

func begin(s *milter.ClientSession, id string) {
	must(s.Mail("sender@remote.test", []string{"SIZE=1000"}))
	if err := s.Macros(milter.CodeRcpt, "i", id); err != nil {
		panic(err)
	}
	must(s.Rcpt("anna@example.test", nil))
	must(s.Rcpt("bert@example.test", []string{"NOTIFY=NEVER"}))
}

// What is answered to an offer that bytes cannot be exact with.
func refused(s *milter.ClientSession, id string, say chan<- string) {
	act, err := s.Mail("sender@remote.test", nil)
	if err == nil && act.Code == milter.ActContinue {
		act, err = s.Rcpt("anna@example.test", nil)
	}
	if err != nil {
		panic(err)
	}
	say <- fmt.Sprintf("%s %c", id, act.Code)
}

func whole(s *milter.ClientSession, id string, m mail, say chan<- string) {
	begin(s, id)
	for _, f := range m.fields {
		must(s.HeaderField(f.key, f.value))
	}
	must(s.HeaderEnd())
	_, act, err := s.BodyReadFrom(bytes.NewReader(m.body))
	if err != nil {
		panic(err)
	}
	say <- fmt.Sprintf("%s %c", id, act.Code)
}

// Each returns with its connection closed or of no use.
var rude = []func(s *milter.ClientSession){
	func(s *milter.ClientSession) { s.End() },
	func(s *milter.ClientSession) { s.HeaderField("Subject", " before any sender"); s.End() },
	func(s *milter.ClientSession) { s.Rcpt("anna@example.test", nil); s.End() },
	func(s *milter.ClientSession) { begin(s, "RUDE"); s.Mail("second@remote.test", nil); s.End() },
	func(s *milter.ClientSession) { begin(s, "RUDE"); s.Helo("late.test") },
	func(s *milter.ClientSession) { s.Macros(milter.CodeMail, "i"); s.Helo("odd.test") },
	func(s *milter.ClientSession) { begin(s, "RUDE"); s.BodyChunk(make([]byte, milter.MaxBodyChunk)) },
	func(s *milter.ClientSession) { s.Conn("x", milter.FamilyInet, 0, strings.Repeat("9", 70000)) },
}

func session(c, impatient *milter.Client, n, messages int, mode string, m mail, say chan<- string) {
	open := func() *milter.ClientSession {
		s, err := c.Session()
		if err != nil {
			panic(err)
		}
		must(s.Conn("client.test", milter.FamilyInet, 4321, "192.0.2.7"))
		must(s.Helo("client.test"))
		return s
	}
	s := open()
	for i := 0; i < messages; i++ {
		id := fmt.Sprintf("GO%dX%d", n, i)
		if mode == "rude" {
			r, err := impatient.Session()
			if err != nil {
				panic(err)
			}
			rude[i%len(rude)](r)
			r.Close()
		}
		if mode == "old" {
			refused(s, id, say)
			s.Close()
			s = open()
			continue
		}
		if i%3 == 2 {
			begin(s, id)
			must(s.HeaderField("Subject", " never finished"))
			s.Close() // abort, quit
			s = open()
			continue
		}
		whole(s, id, m, say)
	}
	s.Close()
}

func main() {
	mode, m := os.Args[2], parse(os.Args[5])
	sessions, _ := strconv.Atoi(os.Args[3])
	messages, _ := strconv.Atoi(os.Args[4])
	o := milter.ClientOptions{ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		ActionMask: milter.OptAction(0x1ff), ProtocolMask: milter.OptProtocol(0x1fffff)}
	if mode == "old" {
		o.ProtocolMask = 0
	}
	c := milter.NewClientWithOptions("unix", os.Args[1], o)
	o.ReadTimeout = 200 * time.Millisecond // it may wait for answers that are not due
	impatient := milter.NewClientWithOptions("unix", os.Args[1], o)
	say := make(chan string, 100)
	var wg sync.WaitGroup
	for n := 0; n < sessions; n++ {
		wg.Add(1)
		go func(n int) {
			defer wg.Done()
			session(c, impatient, n, messages, mode, m, say)
		}(n)
	}
	go func() { wg.Wait(); close(say) }()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for line := range say {
		fmt.Fprintln(out, line)
	}
}
