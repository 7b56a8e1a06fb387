package platform

import "context"

func (c *configurator) Keep(ctx context.Context, report func(what string)) error {
	<-ctx.Done()
	return ctx.Err()
}
