-- Events in an order that no MTA has, each on a connection of its own; then a whole message,
-- which must be taken all the same. The socket is given as -D socket=…
local function open()
	local conn = mt.connect(socket)
	if conn == nil then
		error("cannot connect")
	end
	if mt.negotiate(conn, nil, nil, nil) ~= nil then
		error("negotiation failed")
	end
	return conn
end

-- What comes back does not matter here: that the connection may end is part of it.
local wrong = {
	function(c) mt.rcptto(c, "<anna@example.test>") end,
	function(c) mt.eoh(c) end,
	function(c) mt.bodystring(c, "no message\r\n") end,
	function(c) mt.eom(c) end,
	function(c) mt.header(c, "Subject", " early") end,
	function(c) mt.abort(c) end,
	function(c) mt.data(c) end,
	function(c)
		mt.mailfrom(c, "<a@remote.test>")
		mt.mailfrom(c, "<b@remote.test>")
	end,
	function(c)
		mt.mailfrom(c, "<a@remote.test>")
		mt.rcptto(c, "<anna@example.test>")
		mt.eoh(c)
		mt.header(c, "Subject", " late")
	end,
	function(c)
		mt.mailfrom(c, "")
		mt.rcptto(c, "")
		mt.abort(c)
		mt.abort(c)
	end,
	function(c) mt.unknown(c, "VRFY anna") end,
}
for _, f in ipairs(wrong) do
	local conn = open()
	pcall(f, conn)
	mt.disconnect(conn, false)
end

conn = open()
mt.conninfo(conn, "client.test", "192.0.2.1")
mt.helo(conn, "client.test")
mt.macro(conn, SMFIC_MAIL, "i", "LUA3")
mt.mailfrom(conn, "<a@remote.test>")
mt.rcptto(conn, "<anna@example.test>")
mt.header(conn, "Subject", " in order")
mt.eoh(conn)
mt.bodystring(conn, "body\r\n")
if mt.eom(conn) ~= nil or mt.getreply(conn) ~= SMFIR_CONTINUE then
	error("the message was refused")
end
mt.disconnect(conn)
