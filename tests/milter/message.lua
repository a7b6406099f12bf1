-- A whole message by miltertest; the socket is given as -D socket=…
-- (miltertest puts the blank after the colon itself).
conn = mt.connect(socket)
if conn == nil then
	error("cannot connect")
end
if mt.negotiate(conn, nil, SMFIP_HDR_LEADSPC, nil) ~= nil then
	error("negotiation failed")
end
mt.macro(conn, SMFIC_CONNECT, "j", "mx.test", "{daemon_name}", "smtpd")
if mt.conninfo(conn, "client.test", "192.0.2.1") ~= nil then
	error("no answer to the connection")
end
if mt.helo(conn, "client.test") ~= nil or mt.getreply(conn) ~= SMFIR_CONTINUE then
	error("HELO was refused")
end
mt.macro(conn, SMFIC_MAIL, "{auth_authen}", "anna")
if mt.mailfrom(conn, "<a@remote.test>") ~= nil or mt.getreply(conn) ~= SMFIR_CONTINUE then
	error("MAIL was refused")
end
mt.rcptto(conn, "<anna@example.test>")
mt.macro(conn, SMFIC_RCPT, "i", "LUA2")
mt.rcptto(conn, "<bert@example.test>")
mt.data(conn)
mt.header(conn, "Subject", "by miltertest")
mt.header(conn, "X-Tab", "\tkept\n and folded")
mt.eoh(conn)
mt.bodystring(conn, "one line\r\n")
mt.bodystring(conn, "and another\r")
mt.bodystring(conn, "\n")
if mt.eom(conn) ~= nil or mt.getreply(conn) ~= SMFIR_CONTINUE then
	error("the message was refused")
end
mt.disconnect(conn)
