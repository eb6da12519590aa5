/* A program of a pod that asks its C library's resolver: built with glibc, and statically with musl.
 *
 *   resolve addresses NAME    what getaddrinfo() finds, an address a line
 *   resolve services NAME     the SRV records that res_search() finds: priority, weight, port and target a line
 */
#include <arpa/inet.h>
#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static int addresses(const char *name)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *each;
	char text[NI_MAXHOST];
	int failure = getaddrinfo(name, "80", &hints, &found);

	if (failure) {
		fprintf(stderr, "%s: %s\n", name, gai_strerror(failure));
		return 1;
	}
	for (each = found; each; each = each->ai_next)
		if (!getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST))
			puts(text);
	freeaddrinfo(found);
	return 0;
}

static int services(const char *name)
{
	unsigned char reply[4096];
	char target[NS_MAXDNAME];
	ns_msg message;
	ns_rr record;
	int length = res_search(name, ns_c_in, ns_t_srv, reply, sizeof reply), number;

	if (length < 0 || ns_initparse(reply, length, &message) < 0) {
		fprintf(stderr, "%s: no SRV records\n", name);
		return 1;
	}
	for (number = 0; number < ns_msg_count(message, ns_s_an); number++) {
		const unsigned char *data;

		if (ns_parserr(&message, ns_s_an, number, &record) < 0 || ns_rr_type(record) != ns_t_srv)
			continue;
		data = ns_rr_rdata(record);
		if (dn_expand(ns_msg_base(message), ns_msg_end(message), data + 6, target, sizeof target) < 0)
			return 1;
		printf("%d %d %d %s\n", ns_get16(data), ns_get16(data + 2), ns_get16(data + 4), target);
	}
	return 0;
}

int main(int count, char **arguments)
{
	if (count == 3 && !strcmp(arguments[1], "addresses"))
		return addresses(arguments[2]);
	if (count == 3 && !strcmp(arguments[1], "services"))
		return services(arguments[2]);
	return 2;
}
