-- Probes, half messages and lines that drop; the socket is given as -D socket=…
for i = 1, 10 do
	conn = mt.connect(socket)
	if conn == nil then
		error("cannot connect")
	end
	if i % 5 > 0 then
		mt.negotiate(conn, nil, nil, nil)
	end
	if i % 5 > 1 then
		mt.mailfrom(conn, "<a@remote.test>")
		mt.rcptto(conn, "<anna@example.test>")
	end
	if i % 5 > 2 then
		mt.header(conn, "Subject", " dropped")
	end
	if i % 5 > 3 then
		mt.eoh(conn)
		mt.bodystring(conn, "half a bod")
	end
	mt.disconnect(conn, false)
end
