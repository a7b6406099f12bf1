/* noop_milter.c - a libmilter program that does nothing: the baseline of
 * tests/bench/accept.
 *
 *   noop_milter unix:PATH
 *
 * Asks for no replies but at end of message, as a journal would, and says yes there.
 */
#include <libmilter/mfapi.h>
#include <stdio.h>

static sfsistat
noop_negotiate(SMFICTX *ctx, unsigned long f0, unsigned long f1, unsigned long f2,
               unsigned long f3, unsigned long *pf0, unsigned long *pf1,
               unsigned long *pf2, unsigned long *pf3)
{
	unsigned long quiet = SMFIP_NR_HDR | SMFIP_NR_CONN | SMFIP_NR_HELO |
	                      SMFIP_NR_RCPT | SMFIP_NR_DATA | SMFIP_NR_UNKN |
	                      SMFIP_NR_EOH | SMFIP_NR_BODY;

	(void)ctx;
	(void)f0;
	(void)f2;
	(void)f3;
	*pf0 = 0;
	*pf1 = f1 & (quiet | SMFIP_HDR_LEADSPC);
	*pf2 = 0;
	*pf3 = 0;
	return SMFIS_CONTINUE;
}

static sfsistat
noop_header(SMFICTX *ctx, char *name, char *value)
{
	(void)ctx;
	(void)name;
	(void)value;
	return SMFIS_NOREPLY;
}

static sfsistat
noop_body(SMFICTX *ctx, unsigned char *data, size_t len)
{
	(void)ctx;
	(void)data;
	(void)len;
	return SMFIS_NOREPLY;
}

static sfsistat
noop_eom(SMFICTX *ctx)
{
	(void)ctx;
	return SMFIS_CONTINUE;
}

int
main(int argc, char **argv)
{
	struct smfiDesc desc = {
	    .xxfi_name = (char *)"noop",
	    .xxfi_version = SMFI_VERSION,
	    .xxfi_header = noop_header,
	    .xxfi_body = noop_body,
	    .xxfi_eom = noop_eom,
	    .xxfi_negotiate = noop_negotiate,
	};

	if (argc != 2 || smfi_setconn(argv[1]) != MI_SUCCESS ||
	    smfi_register(desc) != MI_SUCCESS) {
		fprintf(stderr, "usage: noop_milter unix:PATH\n");
		return 64;
	}
	return smfi_main() == MI_SUCCESS ? 0 : 1;
}
